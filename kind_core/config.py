"""Shapes and schedules of a model: what `config.json` of a checkpoint holds, checked once, and the presets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeGuard, TypeVar

from kind_core.classes import ClassInfo
from kind_core.errors import CheckpointError, ConfigError
from kind_core.sampler_settings import Setting, check_settings
from kind_core.samplers import FIRST_ORDER, SAMPLERS, Distillation

FORMAT_VERSION = 2  # of a distilled model; the others are written as 1, which older programs read
_FIELDS = {"format_version", "architecture", "diffusion", "autoencoder", "classes", "provenance"}
_T = TypeVar("_T")
NOISE_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "flow")
FLOW_PREDICTIONS = ("flow_prediction", "sample")
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", "flow_prediction")  # the last on a straight path alone
NORM_EPS = 1e-6
TIMESTEP_FREQUENCIES = 256  # sines and cosines of the timestep embedder, as in every DiT


# Far beyond any DiT: what a damaged config.json asks for is refused before it is allocated.
_LARGEST = {
    "sample_size": 4096,
    "patch_size": 4096,
    "in_channels": 1024,
    "hidden_size": 16_384,
    "depth": 4096,
    "num_heads": 1024,
    "num_classes": 100_000,
}
_MOST_TOKENS = 65_536
_LARGEST_MLP_RATIO = 64
_MOST_TIMESTEPS = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class DiTConfig:
    """Architecture of a DiT whose block matrices are held as `U diag(s) V^T`.

    `sample_size` is the side of the latents (of the image, in pixel space). `learngene_rank` is the paper's N_G and
    `tailor_rank` its N_T; `learngene_rank=None` is the ordinary dense DiT. `tailor_ranks` overrides `tailor_rank`
    class by class. With `learn_sigma` the network has twice the output channels; samplers read the first half.
    `mlp_norm_eps` is the epsilon of the norm before the MLP, which some converted models have larger than the others.
    With `block_embedders` every block has a timestep embedder and label embeddings of its own, as a DiT trained in
    diffusers has; the final layer is conditioned by those of the first block.
    The last `end_blocks` blocks and the final layer of a distilled model are conditioned by where a step ends, the
    others by where it begins (https://arxiv.org/abs/2510.24474).
    """

    sample_size: int
    patch_size: int
    in_channels: int
    hidden_size: int
    depth: int
    num_heads: int
    num_classes: int
    learngene_rank: int | None
    tailor_rank: int = 0
    tailor_ranks: tuple[int, ...] | None = None
    mlp_ratio: float = 4.0
    learn_sigma: bool = False
    mlp_norm_eps: float = NORM_EPS
    block_embedders: bool = False
    end_blocks: int = 0

    def __post_init__(self) -> None:
        for name, most in _LARGEST.items():
            _require_positive(name, getattr(self, name), most)
        if self.sample_size % self.patch_size:
            raise ConfigError(f"sample_size {self.sample_size} is not a multiple of patch_size {self.patch_size}")
        if self.hidden_size % self.num_heads or self.hidden_size % 4:
            raise ConfigError(
                f"hidden_size {self.hidden_size} must be a multiple of 4 and of num_heads {self.num_heads}"
            )
        if self.learngene_rank is not None:
            _require_positive("learngene_rank", self.learngene_rank, _LARGEST["hidden_size"])
        if self.num_tokens > _MOST_TOKENS:
            raise ConfigError(
                f"sample_size {self.sample_size} in patches of {self.patch_size} are {self.num_tokens} tokens, "
                f"expected {_MOST_TOKENS} at most"
            )
        if self.tailor_ranks is not None and len(self.tailor_ranks) != self.num_classes:
            raise ConfigError(
                f"tailor_ranks has {len(self.tailor_ranks)} entries, "
                f"expected one for each of {self.num_classes} classes"
            )
        for rank in (self.tailor_rank, *self.ranks):
            if not _is_whole(rank) or not 0 <= rank <= _LARGEST["hidden_size"]:
                raise ConfigError(
                    f"tailor rank is {rank!r}, expected a whole number from 0 to {_LARGEST['hidden_size']}"
                )
        _require_number("mlp_ratio", self.mlp_ratio, above=0)
        if self.mlp_ratio > _LARGEST_MLP_RATIO:
            raise ConfigError(f"mlp_ratio is {self.mlp_ratio:g}, expected {_LARGEST_MLP_RATIO} at most")
        if self.mlp_size < 1:
            raise ConfigError(f"mlp_ratio is {self.mlp_ratio:g}, which leaves the MLP of {self.hidden_size} no unit")
        _require_number("mlp_norm_eps", self.mlp_norm_eps, above=0)
        for name in ("learn_sigma", "block_embedders"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected true or false")
        if not _is_whole(self.end_blocks) or not 0 <= self.end_blocks < self.depth:
            raise ConfigError(f"end_blocks is {self.end_blocks!r}, expected 0 to below the depth {self.depth}")
        if self.end_blocks and self.block_embedders:
            raise ConfigError(f"end_blocks is {self.end_blocks}, but every block has an embedder of its own")
        if self.is_dense and max(self.ranks):
            raise ConfigError("a dense model (learngene_rank null) has no tailors", "set tailor_rank to 0")

    @property
    def is_dense(self) -> bool:
        return self.learngene_rank is None

    @property
    def ranks(self) -> tuple[int, ...]:
        """Tailor rank of each class."""
        return self.tailor_ranks if self.tailor_ranks is not None else (self.tailor_rank,) * self.num_classes

    @property
    def num_tokens(self) -> int:
        return (self.sample_size // self.patch_size) ** 2

    @property
    def mlp_size(self) -> int:
        return int(self.hidden_size * self.mlp_ratio)

    @property
    def out_channels(self) -> int:
        return self.in_channels * (2 if self.learn_sigma else 1)

    @property
    def num_embedders(self) -> int:
        """Timestep embedders, and embeddings of a label."""
        return self.depth if self.block_embedders else 1

    @property
    def read_embeddings(self) -> tuple[int, ...]:
        """Which embedding each block and the final layer are conditioned by: the first, the end's, or their own."""
        if self.block_embedders:
            return (*range(self.depth), 0)
        begin = self.depth - self.end_blocks if self.end_blocks else self.depth + 1
        return (0,) * begin + (1,) * (self.depth + 1 - begin)

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Of the embedding of one label: (hidden,), or (depth, hidden) where every block has its own."""
        return (self.depth, self.hidden_size) if self.block_embedders else (self.hidden_size,)

    @property
    def matrix_shapes(self) -> dict[str, tuple[int, int]]:
        """(out, in) of the six diverted matrices of a block, by their name inside the block."""
        d, m = self.hidden_size, self.mlp_size
        square = {f"attn.{name}": (d, d) for name in ("q", "k", "v", "o")}
        return {**square, "mlp.up": (m, d), "mlp.down": (d, m)}

    def to_dict(self) -> dict[str, Any]:
        """As `config.json` holds it. Fields that came later are left out at their default: older programs read on."""
        later = {"mlp_norm_eps": NORM_EPS, "block_embedders": False, "end_blocks": 0}
        return {name: value for name, value in asdict(self).items() if name not in later or later[name] != value}

    def matrix_names(self) -> list[tuple[str, int, int]]:
        """(name, out, in) of every diverted matrix of the model, in order."""
        return [
            (f"blocks.{i}.{name}", out, into)
            for i in range(self.depth)
            for name, (out, into) in self.matrix_shapes.items()
        ]


_LATER_DIFFUSION = ("sampler_settings", "distillation")


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffusionConfig:
    """Noise schedule, what the network predicts, and the sampling settings that suit the checkpoint.

    Schedules are diffusers': the names of `beta_schedule`, or `flow` for a straight path from noise to image, along
    which the network predicts the velocity (`flow_prediction`) or the image (`sample`).
    `sampler`, `steps` and `guidance_scale` are the defaults of export. `sampler_settings` are those that `sampler`,
    and no other, has otherwise than ours (see `kind_core.sampler_settings`). `distillation` is there where the network
    was taught to draw in few steps, which `guidance_scale` then says nothing of.
    """

    noise_schedule: str = "linear"
    prediction_type: str = "epsilon"
    num_train_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    sampler: str = "ddim"
    steps: int = 20
    guidance_scale: float = 1.5
    sampler_settings: Mapping[str, Setting] = field(default_factory=dict, hash=False)
    distillation: Distillation | None = None

    def __post_init__(self) -> None:
        _require_choice("noise_schedule", self.noise_schedule, NOISE_SCHEDULES)
        _require_choice("prediction_type", self.prediction_type, PREDICTION_TYPES)
        _require_positive("num_train_timesteps", self.num_train_timesteps, _MOST_TIMESTEPS)
        _require_positive("steps", self.steps)
        for name in ("beta_start", "beta_end"):
            _require_number(name, getattr(self, name), above=0, below=1)
        _require_number("guidance_scale", self.guidance_scale)
        _require_choice("sampler", self.sampler, tuple(SAMPLERS))
        if not isinstance(self.sampler_settings, Mapping):
            raise ConfigError(f"sampler_settings is {self.sampler_settings!r}, expected an object")
        check_settings(self.sampler, SAMPLERS[self.sampler].settings, self.sampler_settings)
        is_flow = self.noise_schedule == "flow"
        if self.prediction_type not in (FLOW_PREDICTIONS if is_flow else PREDICTION_TYPES[:3]):
            raise ConfigError(
                f"prediction_type {self.prediction_type!r} does not go with noise_schedule {self.noise_schedule!r}",
                "use flow with flow_prediction or sample, and the other schedules with epsilon, v_prediction or sample",
            )
        if self.distillation is not None:
            self._check_distillation(self.distillation)

    def _check_distillation(self, distillation: Distillation) -> None:
        """A distilled network answers with the image that a straight step to its end leads towards."""
        wanted = {"noise_schedule": "flow", "prediction_type": "sample", "sampler": FIRST_ORDER}
        for name, expected in wanted.items():
            if getattr(self, name) != expected:
                raise ConfigError(f"{name} of a distilled model is {getattr(self, name)!r}, expected {expected!r}")
        distillation.require_steps(self.steps)

    def to_dict(self) -> dict[str, Any]:
        """As `config.json` holds it; what came later is left out where it says nothing."""
        data = {name: value for name, value in asdict(self).items() if name not in _LATER_DIFFUSION or value}
        return data if self.distillation is None else data | {"distillation": self.distillation.to_dict()}


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
        _require_choice("autoencoder kind", self.kind, ("AutoencoderTiny", "AutoencoderKL"))
        _require_number("scaling_factor", self.scaling_factor, above=1e-6, below=1e6)
        _require_number("shift_factor", self.shift_factor)
        _require_positive("downscale", self.downscale)

    def to_dict(self) -> dict[str, Any]:
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

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not isinstance(value, str):
                raise ConfigError(f"provenance {item.name} is {value!r}, expected a text")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Everything in `config.json`."""

    dit: DiTConfig
    diffusion: DiffusionConfig
    classes: tuple[ClassInfo, ...]
    autoencoder: AutoencoderConfig | None = None
    provenance: Provenance = Provenance()

    def __post_init__(self) -> None:
        if (self.diffusion.distillation is None) != (self.dit.end_blocks == 0):
            raise ConfigError(f"end_blocks is {self.dit.end_blocks}, expected 1 or more in a distilled model, else 0")
        if len(self.classes) != self.dit.num_classes:
            raise ConfigError(f"{len(self.classes)} classes are named, expected num_classes = {self.dit.num_classes}")
        ids = [c.id for c in self.classes]
        if len(set(ids)) != len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise ConfigError(f"class id {twice!r} appears twice")

    @property
    def format_version(self) -> int:
        """The oldest that says all of it: programs that know nothing of distilled models must not draw with one."""
        return 1 if self.diffusion.distillation is None else FORMAT_VERSION

    def to_dict(self) -> dict[str, Any]:
        return {
            "format_version": self.format_version,
            "architecture": self.dit.to_dict(),
            "diffusion": self.diffusion.to_dict(),
            "autoencoder": None if self.autoencoder is None else self.autoencoder.to_dict(),
            "classes": [{"id": c.id, "names": list(c.names)} for c in self.classes],
            # it came later: left out where nothing is known, older programs read on
            **({} if self.provenance == Provenance() else {"provenance": self.provenance.to_dict()}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelConfig:
        """Parse `config.json`; raises CheckpointError for a newer format, ConfigError for what does not fit."""
        version = data.get("format_version")
        if not _is_whole(version) or version < 1:
            raise CheckpointError(f"config.json has format_version {version!r}, expected an integer from 1")
        if version > FORMAT_VERSION:
            raise CheckpointError(
                f"config.json has format_version {version}, this program reads up to {FORMAT_VERSION}",
                "upgrade kind-diffusion",
            )
        _require_known(data, _FIELDS, "config.json")
        autoencoder = data.get("autoencoder")
        try:
            return cls(
                dit=_build(DiTConfig, data["architecture"], "architecture"),
                diffusion=_build(DiffusionConfig, _with_distillation(data["diffusion"]), "diffusion"),
                classes=_build_classes(data["classes"]),
                autoencoder=None if autoencoder is None else _build(AutoencoderConfig, autoencoder, "autoencoder"),
                provenance=_build(Provenance, data.get("provenance", {}), "provenance"),
            )
        except KeyError as error:
            raise CheckpointError(f"config.json has no {error.args[0]!r}") from error


def on_schedule(diffusion: DiffusionConfig, noise_schedule: str) -> DiffusionConfig:
    """The settings for a model of the same kind trained along another path; one that predicted the noise or a velocity
    predicts the noise, on a straight path its velocity. A sampler that does not know the path gives way to `dpmpp`.
    """
    _require_choice("noise_schedule", noise_schedule, NOISE_SCHEDULES)
    if (noise_schedule == "flow") == (diffusion.noise_schedule == "flow"):
        return replace(diffusion, noise_schedule=noise_schedule)
    noise = "flow_prediction" if noise_schedule == "flow" else "epsilon"
    prediction = diffusion.prediction_type if diffusion.prediction_type == "sample" else noise
    return replace(diffusion, noise_schedule=noise_schedule, prediction_type=prediction, sampler="dpmpp")


def _build(cls: type[_T], data: object, where: str) -> _T:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where} in config.json is {data!r}, expected an object")
    _require_known(data, {f.name for f in fields(cls)}, where)  # type: ignore[arg-type]  # callers pass dataclasses
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


def _require_known(data: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(data) - known)
    if unknown:
        raise ConfigError(f"unknown field {unknown[0]!r} in {where}, expected {', '.join(sorted(known))}")


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _require_positive(name: str, value: object, most: int | None = None) -> None:
    if not _is_whole(value) or value < 1 or (most is not None and value > most):
        limit = "" if most is None else f" to {most}"
        raise ConfigError(f"{name} is {value!r}, expected a whole number from 1{limit}")


def _require_number(name: str, value: object, above: float = -math.inf, below: float = math.inf) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not above < value < below:
        limit = "" if above == -math.inf else f" above {above}"
        limit += "" if below == math.inf else f" and below {below}"
        raise ConfigError(f"{name} is {value!r}, expected a number{limit}")


def _require_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(allowed)}")


_PAPER_LATENTS: dict[str, Any] = {"sample_size": 32, "in_channels": 4, "learn_sigma": True, "num_classes": 150}
_SIZES: dict[str, dict[str, Any]] = {
    "s": {"hidden_size": 384, "depth": 12, "num_heads": 6},
    "b": {"hidden_size": 768, "depth": 12, "num_heads": 12},
    "l": {"hidden_size": 1024, "depth": 24, "num_heads": 16},
    "xl": {"hidden_size": 1152, "depth": 28, "num_heads": 16},
}
# N_G and N_T: B and L are the paper's settings, KIND-Mobile is the only live rank (154) that gives its printed figures,
# and 206 the one whose size, truncated, is that of DiT-L in table 1;
# S and XL keep the paper's ratio of learngene to hidden size (0.414).
_RANKS = {"s": (159, 3), "b": (318, 3), "l": (424, 4), "xl": (477, 4)}

# 10 classes at 32 x 32 pixels: the largest problem that gives recognisable pictures in two hours on two CPU cores.
_SAMPLE = DiTConfig(
    sample_size=32,
    patch_size=4,
    in_channels=3,
    hidden_size=160,
    depth=6,
    num_heads=5,
    num_classes=10,
    learngene_rank=80,
    tailor_rank=4,
)
# For a GPU: forty classes and every tailor are 19 MB in fp16.
_SAMPLE_64 = DiTConfig(
    sample_size=64,
    patch_size=4,
    in_channels=3,
    hidden_size=256,
    depth=6,
    num_heads=8,
    num_classes=40,
    learngene_rank=128,
    tailor_rank=3,
)
# Patches of 8: 64 x 64 pixels at the tokens, and so nearly at the cost, of `sample`.
_SAMPLE_64_CPU = replace(_SAMPLE, sample_size=64, patch_size=8)
# Ten small grey pictures of one thing each: under 4 MB in fp16 with every tailor.
_GARMENTS = replace(_SAMPLE, hidden_size=128, num_heads=4, learngene_rank=56, tailor_rank=3)
_SAMPLE_DIFFUSION = DiffusionConfig(
    noise_schedule="squaredcos_cap_v2", prediction_type="sample", sampler="dpmpp", steps=20, guidance_scale=2.5
)
_PIXELS = {
    "sample": (_SAMPLE, _SAMPLE_DIFFUSION),
    "sample-64": (_SAMPLE_64, _SAMPLE_DIFFUSION),
    "sample-64-cpu": (_SAMPLE_64_CPU, on_schedule(_SAMPLE_DIFFUSION, "flow")),
    "garments": (_GARMENTS, on_schedule(_SAMPLE_DIFFUSION, "flow")),
}


def preset(name: str) -> tuple[DiTConfig, DiffusionConfig]:
    """Architecture and schedule of `name`: `kind-b/2`, `dit-b/2` (also s, l, xl, any patch), `kind-mobile`, `sample`.

    `kind-*` are the paper's settings (150 classes, latents 4x32x32), `kind-l-206` the smaller DiT-L of its table 1;
    `dit-*` are their dense twins. The samples work on
    pixels: `sample` on 32 x 32 `garments` the same but smaller, and `sample-64-cpu` on 64 x 64 for a CPU,
    `sample-64` on 64 x 64 for a GPU; `dit-sample` and so on are theirs.
    """
    key = name.lower()
    if key.removeprefix("dit-") in _PIXELS:
        dit, diffusion = _PIXELS[key.removeprefix("dit-")]
        is_dense = key.startswith("dit-")
        return replace(dit, learngene_rank=None, tailor_rank=0) if is_dense else dit, diffusion
    if key == "kind-mobile":
        b2, diffusion = preset("kind-b/2")
        return replace(b2, learngene_rank=151, tailor_rank=3), diffusion
    if key == "kind-l-206":
        l2, diffusion = preset("kind-l/2")
        return replace(l2, learngene_rank=202, tailor_rank=4), diffusion
    family, _, rest = key.partition("-")
    size, _, patch = rest.partition("/")
    if family not in ("kind", "dit") or size not in _SIZES or not patch.isdigit():
        raise ConfigError(
            f"unknown preset {name!r}, expected {', '.join(_PIXELS)}, kind-mobile, kind-l-206 or kind-SIZE/PATCH, or a "
            "dense twin: dit-sample, dit-sample-64 ... or dit-SIZE/PATCH",
            "SIZE is s, b, l or xl; for example kind-b/2",
        )
    num_learngene, num_tailor = (None, 0) if family == "dit" else _RANKS[size]
    dit = DiTConfig(
        **_PAPER_LATENTS, **_SIZES[size], patch_size=int(patch), learngene_rank=num_learngene, tailor_rank=num_tailor
    )
    return dit, DiffusionConfig()
