"""What a run trains: the architecture and schedule of a preset, or of the checkpoint that is adapted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kind_core.checkpoint_config import read_any_config, read_config
from kind_core.class_ids import require_distinct
from kind_core.classes import ClassInfo, normalise_name
from kind_core.config import AutoencoderConfig, DiffusionConfig, DiTConfig, ModelConfig, TextConfig, on_schedule, preset
from kind_core.errors import ConfigError
from kind_train.config import TrainConfig
from kind_train.data.captions.store_files import read_record
from kind_train.methods import open_method
from kind_train.preset_options import ARCHITECTURE
from kind_train.start.distillation import find_origin, make_student, refuse_student

# What a preset says of a network, and of what it learns to predict.
_SIZES = (*ARCHITECTURE, "mlp_ratio", "learngene_rank", "tailor_rank")
_OBJECTIVE = ("noise_schedule", "prediction_type")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A model before its classes are known; the number of classes in `dit` says nothing.

    `known` are the classes of the checkpoint that a run starts from: it names what a data set only numbers.
    """

    dit: DiTConfig
    diffusion: DiffusionConfig
    autoencoder: AutoencoderConfig | None = None
    text: TextConfig | None = None
    known: tuple[ClassInfo, ...] = ()

    def with_classes(self, classes: tuple[ClassInfo, ...]) -> ModelConfig:
        """The config of a model of this shape."""
        require_distinct(classes)
        named = {info.id: info for info in self.known}
        bare = {info.id for info in classes if normalise_name(info.full_name) == normalise_name(info.id)}
        classes = tuple(named.get(info.id, info) if info.id in bare else info for info in classes)
        dit = replace(self.dit, num_classes=len(classes), tailor_ranks=None)
        return ModelConfig(
            dit=dit, text=self.text, diffusion=self.diffusion, classes=classes, autoencoder=self.autoencoder
        )

    def describe_new(self, classes: Sequence[ClassInfo]) -> str | None:
        """A line about those of `classes` that the checkpoint lacks, so that they start at random; None for none."""
        ids = {info.id: None for info in self.known}
        new = [info for info in classes if info.id not in ids]
        if not self.known or not new:
            return None
        some = ", ".join([*ids][:3]) + (", ..." if len(ids) > 3 else "")
        return (
            f"{len(new)} of the {len(classes)} classes start at random, such as {new[0].name!r} ({new[0].id}): the "
            f"checkpoint has the ids {some}; call the data's classes so to train them on"
        )


def check_inputs(shape: Shape, given: tuple[int, int, int]) -> None:
    """Raise ConfigError when a model does not take what the data set gives, (channels, size, size)."""
    dit = shape.dit
    if given[0] != dit.in_channels:
        message = f"the preset works on {dit.in_channels} channels, the data have {given[0]}"
        hint = "encode the photos first: kind-train cache" if given[0] == 3 else "choose a preset of latents: kind-b/2"
        raise ConfigError(message, f"{hint}; --preset sample works on pixels")
    if given[1:] != (dit.sample_size, dit.sample_size):
        raise ConfigError(f"the data is {given[2]} x {given[1]}, the model takes {dit.sample_size} x {dit.sample_size}")


def pick_shape(config: TrainConfig) -> Shape:
    """The shape that the options ask for; raises ConfigError where it cannot be trained or adapted."""
    if config.teacher is not None:
        student = make_student(config)
        known = read_config(Path(config.teacher)).classes
        return Shape(dit=student.dit, diffusion=student.diffusion, autoencoder=student.autoencoder, known=known)
    if config.base is None and config.start_from is not None:
        if config.size is not None:
            raise ConfigError("--size was given, but --start-from says the size", "leave one of them out")
        return _shape_of_start(config, Path(config.start_from))
    if config.base is None:
        dit, diffusion = preset(config.preset_name)
        # no loss here trains a variance and no sampler reads one: half of the last layer would stay zero for ever
        dit = replace(dit, learn_sigma=False)
        if config.noise_schedule is not None:
            diffusion = on_schedule(diffusion, config.noise_schedule)
        return Shape(dit=dit if config.size is None else _resize(dit, config), diffusion=diffusion)
    base = read_any_config(Path(config.base))
    _check_text(config, base.text)
    refuse_student(config.base, base.diffusion, "adapted")
    method = open_method(config.method)
    method.require_base(base.dit, config.base)
    dit = method.shape(method.plan(base.dit, config.tailor_rank))
    return Shape(dit=dit, diffusion=base.diffusion, autoencoder=base.autoencoder, text=base.text)


def _check_text(config: TrainConfig, text: TextConfig | None) -> None:
    """Raise ConfigError or DataError where the captions of a run are not those that its base reads, if it reads any."""
    if text is None:
        if config.text_embeddings is not None:
            raise ConfigError(
                f"{config.base} draws classes, but captions were given: {config.text_embeddings}",
                "leave out --text-embeddings, or give --checkpoint a model of captions",
            )
        return
    if config.text_embeddings is None:
        raise ConfigError(
            f"{config.base} draws from captions, but no embedded captions were given",
            "embed those of the data once (kind-train embed), and add --text-embeddings",
        )
    record = read_record(Path(config.text_embeddings))
    if record.channels != text.channels or record.tokens > text.tokens:
        raise ConfigError(
            f"{config.text_embeddings} holds up to {record.tokens} words of {record.channels} channels "
            f"({record.name}), {config.base} reads up to {text.tokens} of {text.channels}",
            "embed the captions with the text encoder of that model",
        )


def _resize(dit: DiTConfig, config: TrainConfig) -> DiTConfig:
    """The same model on photos of another size; raises ConfigError where its patches do not tile them."""
    assert config.size is not None
    if dit.in_channels != 3:
        message = f"size is {config.size}, but preset {config.preset_name!r} works on latents"
        raise ConfigError(message, "give --size to kind-train cache, which makes them")
    if config.size % dit.patch_size:
        message = (
            f"size is {config.size}, expected a multiple of {dit.patch_size}, the patches of {config.preset_name!r}"
        )
        raise ConfigError(message, f"for example --size {-(-config.size // dit.patch_size) * dit.patch_size}")
    return replace(dit, sample_size=config.size)


def _shape_of_start(config: TrainConfig, path: Path) -> Shape:
    """That of the checkpoint whose weights are trained on; a preset that is named must agree, field by field.

    What only converted models have (a norm's epsilon, embedders in every block) no preset says.
    """
    start = read_config(find_origin(config, path))
    refuse_student(config.start_from or "", start.diffusion, "trained on")
    if config.preset is not None:
        dit, diffusion = preset(config.preset)
        for name in _SIZES if start.autoencoder is not None or dit.in_channels != 3 else ("sample_size", *_SIZES):
            _require_same(name, getattr(start.dit, name), getattr(dit, name), config)
        for name in _OBJECTIVE if config.noise_schedule is None else ():
            _require_same(name, getattr(start.diffusion, name), getattr(diffusion, name), config)
    schedule = config.noise_schedule
    if schedule not in (None, start.diffusion.noise_schedule):
        raise ConfigError(
            f"noise_schedule is {schedule!r}, but {path} was trained on {start.diffusion.noise_schedule!r}",
            "leave out --noise-schedule, or --start-from",
        )
    return Shape(dit=start.dit, diffusion=start.diffusion, autoencoder=start.autoencoder, known=start.classes)


def _require_same(name: str, theirs: object, ours: object, config: TrainConfig) -> None:
    if theirs != ours:
        raise ConfigError(
            f"{config.start_from} has {name} {theirs}, preset {config.preset!r} has {ours}",
            "leave out --preset, the architecture is that of --start-from; or start from a checkpoint of this preset",
        )
