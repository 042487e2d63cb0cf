"""What a teacher's student is: the same network, its last blocks told where a step ends, drawing in few steps."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

from kind_core.checkpoint_config import hash_learngene, read_config
from kind_core.config import DiffusionConfig, DiTConfig, ModelConfig
from kind_core.errors import ConfigError
from kind_core.samplers import FIRST_ORDER, Distillation
from kind_train.config import EVERYTHING, TrainConfig

# What another set of classes changes of the same architecture.
_OF_CLASSES = ("num_classes", "tailor_rank", "tailor_ranks")


def make_student(config: TrainConfig) -> ModelConfig:
    """The config of a student of `config.teacher`; raises ConfigError where that cannot be distilled.

    https://arxiv.org/abs/2510.24474: the first two thirds of the blocks see where a step begins, the others where it
    ends. There are no new parameters, and where both are one time the student is its teacher. One of `config.size`, or
    of the size of what it starts from, draws larger pictures in as many patches, see `enlarge`.
    """
    assert config.teacher is not None
    teacher = read_config(Path(config.teacher))
    _require_teacher(config.teacher, teacher)
    sha256, guidance, keeps = hash_learngene(Path(config.teacher)), teacher.diffusion.guidance_scale, True
    size = teacher.dit.sample_size
    start = None if config.start_from is None else read_config(find_origin(config, config.start_from))
    if start is not None:
        earlier = _require_earlier(config, start, sha256)
        guidance, keeps, size = earlier.guidance_scale, earlier.learngene == sha256, start.dit.sample_size
    dit = _enlarge_teacher(config, teacher, config.size or size)
    dit = replace(dit, end_blocks=dit.depth - 2 * dit.depth // 3)
    if start is not None and Path(config.start_from or "").exists():
        alike = enlarge(start.dit, dit.sample_size) or start.dit
        _require_alike(config.start_from or "", alike, dit, f"a student of {config.teacher}")
    distillation = Distillation(
        steps=config.steps,
        guidance_scale=guidance if config.guidance is None else config.guidance,
        learngene=sha256 if keeps and config.train != EVERYTHING else None,
        teacher=sha256,
    )
    diffusion = replace(
        teacher.diffusion,
        sampler=FIRST_ORDER,
        sampler_settings={},
        steps=config.steps[0],
        guidance_scale=1.0,
        distillation=distillation,
    )
    return replace(teacher, dit=dit, diffusion=diffusion)


def enlarge(dit: DiTConfig, size: int) -> DiTConfig | None:
    """The same network on pictures of another side, in as many patches, each larger by a whole factor; None where
    `size` is no such side."""
    factor, rest = divmod(size, dit.sample_size)
    return None if rest or factor < 1 else replace(dit, sample_size=size, patch_size=factor * dit.patch_size)


def refuse_student(path: str, diffusion: DiffusionConfig, what: str) -> None:
    """Raise ConfigError where the model at `path` is distilled already, so that it cannot be `what`."""
    if diffusion.distillation is not None:
        raise ConfigError(
            f"{path} was distilled for {diffusion.distillation.describe_steps()} steps and cannot be {what}",
            "give the model that it was distilled from",
        )


def _require_teacher(path: str, teacher: ModelConfig) -> None:
    refuse_student(path, teacher.diffusion, "distilled again")
    diffusion = teacher.diffusion
    if diffusion.noise_schedule != "flow" or diffusion.prediction_type != "sample":
        raise ConfigError(
            f"{path} predicts {diffusion.prediction_type!r} on noise schedule {diffusion.noise_schedule!r}, "
            "expected 'sample' on 'flow': a few-step model draws straight lines towards pictures",
            "train such a teacher: kind-train fit --preset sample --noise-schedule flow --data ... --output ...",
        )
    if teacher.dit.block_embedders or teacher.dit.depth < 2:
        raise ConfigError(
            f"{path} has {teacher.dit.depth} blocks"
            f"{', each with a timestep embedder of its own' if teacher.dit.block_embedders else ''}, expected two or "
            "more that share one",
            "train a teacher with kind-train fit",
        )


def _enlarge_teacher(config: TrainConfig, teacher: ModelConfig, size: int) -> DiTConfig:
    """The network of a student whose pictures have the side `size`."""
    side, larger = teacher.dit.sample_size, enlarge(teacher.dit, size)
    if size == side:
        return teacher.dit
    if teacher.dit.in_channels != 3:
        raise ConfigError(
            f"size is {size}, but {config.teacher} works on latents of {side} x {side}", "leave out --size"
        )
    if larger is None:
        raise ConfigError(
            f"size is {size}, expected a multiple of {side}, the side of the pictures of {config.teacher}",
            f"for example --size {2 * side}",
        )
    if config.follow or config.train != EVERYTHING:
        held = f"follow is {config.follow:g}" if config.follow else f"train is {config.train!r}"
        raise ConfigError(
            f"size is {size} and {held}: a teacher of {side} shows no larger picture, and patches are learnt anew",
            f"learn from photos alone: --follow 0 --match-photos 1 --train {EVERYTHING}",
        )
    return larger


def find_origin(config: TrainConfig, origin: str | Path) -> Path:
    """Where a run reads about what it started from: there, or once it goes on and that is gone, in itself."""
    path, own = Path(origin), Path(config.output) / "last"
    return path if path.exists() or not own.exists() else own


def _require_earlier(config: TrainConfig, start: ModelConfig, sha256: str) -> Distillation:
    """What the earlier student `start` was distilled for; raises ConfigError where a run cannot go on so."""
    earlier = start.diffusion.distillation
    if earlier is None:
        raise ConfigError(
            f"{config.start_from} was never distilled, expected an earlier student of {config.teacher}",
            "leave out --start-from: a student starts as its teacher",
        )
    if sha256 not in (earlier.teacher, earlier.learngene):
        raise ConfigError(
            f"{config.start_from} was distilled from {_name(earlier.teacher or earlier.learngene)}, {config.teacher} "
            f"is {_name(sha256)}",
            "give the --checkpoint that it was distilled from",
        )
    lacking = [steps for steps in config.steps if steps not in earlier.steps]
    if lacking:
        raise ConfigError(
            f"steps {', '.join(map(str, lacking))} were not trained in {config.start_from}, which was distilled for "
            f"{earlier.describe_steps()}",
            f"take --steps {','.join(map(str, earlier.steps))} or some of them",
        )
    return earlier


def _require_alike(path: str, ours: DiTConfig, theirs: DiTConfig, whose: str) -> None:
    for name in (one.name for one in fields(DiTConfig) if one.name not in _OF_CLASSES):
        if getattr(ours, name) != getattr(theirs, name):
            raise ConfigError(
                f"{path} has {name} {getattr(ours, name)}, {whose} has {getattr(theirs, name)}",
                "start from a student with its architecture: one of --train table, tailors or everything",
            )


def _name(sha256: str | None) -> str:
    return "a teacher that it does not name" if sha256 is None else f"the learngene {sha256[:12]}"
