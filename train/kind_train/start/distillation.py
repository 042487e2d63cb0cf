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
    ends. There are no new parameters, and where both are one time the student is its teacher.
    """
    assert config.teacher is not None
    teacher = read_config(Path(config.teacher))
    _require_teacher(config.teacher, teacher)
    sha256, guidance, keeps = hash_learngene(Path(config.teacher)), teacher.diffusion.guidance_scale, True
    earlier = None if config.start_from is None else _read_earlier(config, config.start_from, teacher, sha256)
    if earlier is not None:
        guidance, keeps = earlier.guidance_scale, earlier.learngene == sha256
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
    return replace(teacher, dit=_show_ends(teacher.dit), diffusion=diffusion)


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


def _show_ends(dit: DiTConfig) -> DiTConfig:
    """The same network, its last blocks told where a step ends."""
    return replace(dit, end_blocks=dit.depth - 2 * dit.depth // 3)


def _read_earlier(config: TrainConfig, start_from: str, teacher: ModelConfig, sha256: str) -> Distillation:
    """What the earlier student at `start_from` was distilled for; raises ConfigError where it cannot go on so."""
    path, own = Path(start_from), Path(config.output) / "last"
    is_there = path.exists() or not own.exists()  # a run that goes on does not need what it once started from
    start = read_config(path if is_there else own)
    earlier = start.diffusion.distillation
    if earlier is None:
        raise ConfigError(
            f"{start_from} was never distilled, expected an earlier student of {config.teacher}",
            "leave out --start-from: a student starts as its teacher",
        )
    if is_there:
        _require_alike(start_from, start.dit, _show_ends(teacher.dit), f"its teacher {config.teacher}")
    if sha256 not in (earlier.teacher, earlier.learngene):
        raise ConfigError(
            f"{start_from} was distilled from {_name(earlier.teacher or earlier.learngene)}, {config.teacher} is "
            f"{_name(sha256)}",
            "give the --checkpoint that it was distilled from",
        )
    lacking = [steps for steps in config.steps if steps not in earlier.steps]
    if lacking:
        raise ConfigError(
            f"steps {', '.join(map(str, lacking))} were not trained in {start_from}, which was distilled for "
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
