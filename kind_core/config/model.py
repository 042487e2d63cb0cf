"""Everything in `config.json` of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TypeVar

from kind_core.classes import ClassInfo
from kind_core.config.checks import is_whole, require_choice, require_known, require_number, require_positive
from kind_core.config.diffusion import DiffusionConfig
from kind_core.config.dit import DiTConfig
from kind_core.errors import CheckpointError, ConfigError
from kind_core.samplers import Distillation

# Of a model of captions; a distilled one is written as 2 and the others as 1, which older programs read.
FORMAT_VERSION = 3
_FIELDS = {"format_version", "architecture", "text", "diffusion", "autoencoder", "classes", "provenance", "training"}
_MOST_CHANNELS = 65_536
_MOST_TOKENS = 4096
_LARGEST_SIDE = 65_536
# A network that leaves more than this of the error of a guess without shapes draws none.
_BARELY = 0.5
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoencoderConfig:
    """The diffusers autoencoder that turns images into latents, and how its numbers become those of the model.

    latents = (what it encodes - shift_factor) * scaling_factor. `source` says where its files lie in a checkpoint;
    it is no part of what it computes.
    """

    kind: str
    source: str = field(default="autoencoder", compare=False)
    scaling_factor: float = 1.0
    shift_factor: float = 0.0
    downscale: int = 8

    def __post_init__(self) -> None:
        require_choice("autoencoder kind", self.kind, ("AutoencoderTiny", "AutoencoderKL"))
        require_number("scaling_factor", self.scaling_factor, above=1e-6, below=1e6)
        require_number("shift_factor", self.shift_factor)
        require_positive("downscale", self.downscale)

    def to_dict(self) -> dict[str, object]:
        """As `config.json` holds it, without the places of this machine; `shift_factor` came later."""
        data = asdict(self) | {"source": "autoencoder"}
        return {name: value for name, value in data.items() if name != "shift_factor" or value}


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Whose the weights are, under which licence, and what they were trained on: for model cards and programs.

    `training` says how they were trained where that is not the ordinary way.
    """

    author: str = ""
    licence: str = ""
    data: str = ""
    training: str = ""

    def to_dict(self) -> dict[str, str]:
        """As `config.json` holds it; `training` came later and is left out where it says nothing."""
        return {name: value for name, value in asdict(self).items() if name != "training" or value}

    def with_training(self, *texts: str) -> Provenance:
        """The same, with each part of these `texts` in its `training`, once; parts are joined by semicolons."""
        parts = [part for text in (self.training, *texts) for part in text.split("; ") if part]
        return replace(self, training="; ".join(dict.fromkeys(parts)))

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not isinstance(value, str):
                raise ConfigError(f"provenance {item.name} is {value!r}, expected a text")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextConfig:
    """What makes a DiT a PixArt: in every block it attends to the embedded words of a caption.

    `channels` are those of the text encoder, `tokens` how many it gives of a caption. With `is_projected` they go
    through two layers first. `interpolation_scale` is that of the position embedding. `picture_side`, in pixels, is
    there where the model is also told how large the picture is that it draws.
    """

    channels: int
    tokens: int
    is_projected: bool = True
    interpolation_scale: int = 1
    picture_side: int | None = None

    def __post_init__(self) -> None:
        require_positive("text channels", self.channels, _MOST_CHANNELS)
        require_positive("text tokens", self.tokens, _MOST_TOKENS)
        require_positive("interpolation_scale", self.interpolation_scale, _LARGEST_SIDE)
        if self.picture_side is not None:
            require_positive("picture_side", self.picture_side, _LARGEST_SIDE)
        if not isinstance(self.is_projected, bool):
            raise ConfigError(f"is_projected is {self.is_projected!r}, expected true or false")

    def require_trunk(self, dit: DiTConfig) -> None:
        """Raise ConfigError where the transformer around the captions has what a PixArt has not."""
        for name in ("block_embedders", "end_blocks"):
            if getattr(dit, name):
                raise ConfigError(f"{name} is {getattr(dit, name)}, which a model of captions does not have")
        if self.picture_side is not None and dit.hidden_size % 3:
            raise ConfigError(
                f"hidden_size is {dit.hidden_size}, expected a multiple of 3 where the size of the picture is told"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRecord:
    """`images` seen, the loss of held-out photos, and what that of the mean image is at the same noise.

    The mean image's is the loss of the best guess, pixel by pixel, that knows the mean of the photos and how far they
    lie from it, but no shapes: see `kind_train.run.scoring`. None where nothing was held out.
    """

    images: int
    held_out_loss: float | None = None
    mean_image_loss: float | None = None

    def __post_init__(self) -> None:
        require_positive("training images", self.images)
        if self.held_out_loss is not None:  # below 0 where pictures keep away from photos of other classes
            require_number("training held_out_loss", self.held_out_loss)
        if self.mean_image_loss is not None:
            require_number("training mean_image_loss", self.mean_image_loss, above=0)

    @property
    def share(self) -> float | None:
        """The held-out loss as a share of the mean image's."""
        if self.held_out_loss is None or self.mean_image_loss is None:
            return None
        return self.held_out_loss / self.mean_image_loss

    @property
    def is_barely_trained(self) -> bool:
        return self.share is not None and self.share > _BARELY

    def weaker(self, other: TrainingRecord | None) -> TrainingRecord:
        """Of two the one that was trained less far, as both say."""
        return other if other is not None and (other.share or 0) > (self.share or 0) else self

    def to_dict(self) -> dict[str, object]:
        """As `config.json` and a bundle's manifest hold it."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Everything in `config.json`. `text` is there where a model draws from captions; its classes are then domains."""

    dit: DiTConfig
    diffusion: DiffusionConfig
    classes: tuple[ClassInfo, ...]
    autoencoder: AutoencoderConfig | None = None
    provenance: Provenance = Provenance()
    training: TrainingRecord | None = field(default=None, compare=False)  # no part of what the model is
    text: TextConfig | None = None

    def __post_init__(self) -> None:
        if (self.diffusion.distillation is None) != (self.dit.end_blocks == 0):
            raise ConfigError(f"end_blocks is {self.dit.end_blocks}, expected 1 or more in a distilled model, else 0")
        if self.text is not None:
            self.text.require_trunk(self.dit)
        if len(self.classes) != self.dit.num_classes:
            raise ConfigError(f"{len(self.classes)} classes are named, expected num_classes = {self.dit.num_classes}")
        ids = [c.id for c in self.classes]
        if len(set(ids)) != len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise ConfigError(f"class id {twice!r} appears twice")

    @property
    def format_version(self) -> int:
        """The oldest that says all of it: programs that know nothing of a kind of model must not draw with one."""
        if self.text is not None:
            return FORMAT_VERSION
        return 1 if self.diffusion.distillation is None else 2

    def to_dict(self) -> dict[str, object]:
        return {
            "format_version": self.format_version,
            "architecture": self.dit.to_dict(),
            **({} if self.text is None else {"text": asdict(self.text)}),
            "diffusion": self.diffusion.to_dict(),
            "autoencoder": None if self.autoencoder is None else self.autoencoder.to_dict(),
            "classes": [{"id": c.id, "names": list(c.names)} for c in self.classes],
            # it came later: left out where nothing is known, older programs read on
            **({} if self.provenance == Provenance() else {"provenance": self.provenance.to_dict()}),
            **({} if self.training is None else {"training": self.training.to_dict()}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> ModelConfig:
        """Parse `config.json`; raises CheckpointError for a newer format, ConfigError for what does not fit."""
        version = data.get("format_version")
        if not is_whole(version) or version < 1:
            raise CheckpointError(f"config.json has format_version {version!r}, expected an integer from 1")
        if version > FORMAT_VERSION:
            raise CheckpointError(
                f"config.json has format_version {version}, this program reads up to {FORMAT_VERSION}",
                "upgrade kind-diffusion",
            )
        require_known(data, _FIELDS, "config.json")
        autoencoder, training, text = (data.get(name) for name in ("autoencoder", "training", "text"))
        try:
            return cls(
                dit=_build(DiTConfig, data["architecture"], "architecture"),
                diffusion=_build(DiffusionConfig, _with_distillation(data["diffusion"]), "diffusion"),
                classes=_build_classes(data["classes"]),
                autoencoder=None if autoencoder is None else _build(AutoencoderConfig, autoencoder, "autoencoder"),
                provenance=_build(Provenance, data.get("provenance", {}), "provenance"),
                training=None if training is None else _build(TrainingRecord, training, "training"),
                text=None if text is None else _build(TextConfig, text, "text"),
            )
        except KeyError as error:
            raise CheckpointError(f"config.json has no {error.args[0]!r}") from error


def _build(cls: type[_T], data: object, where: str) -> _T:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where} in config.json is {data!r}, expected an object")
    require_known(data, {f.name for f in fields(cls)}, where)  # type: ignore[arg-type]  # callers pass dataclasses
    try:
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in data.items()})
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def _with_distillation(data: object) -> object:
    if not isinstance(data, Mapping) or data.get("distillation") is None:
        return data
    return {**data, "distillation": Distillation.from_dict(data["distillation"])}


def _build_classes(data: object) -> tuple[ClassInfo, ...]:
    if not isinstance(data, list):
        raise ConfigError(f"classes in config.json is {data!r}, expected a list")
    for entry in data:
        names = entry.get("names") if isinstance(entry, Mapping) else None
        if not isinstance(names, list) or not all(isinstance(text, str) for text in (entry.get("id"), *names)):
            raise ConfigError(f"class {entry!r} in config.json, expected an id and a list of names")
    return tuple(ClassInfo(id=entry["id"], names=tuple(entry["names"])) for entry in data)
