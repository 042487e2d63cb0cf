"""What a teacher's student is: the same network, its last blocks told where a step ends, drawing in few steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kind_core.checkpoint_config import hash_learngene, read_config
from kind_core.config import DiffusionConfig, ModelConfig
from kind_core.errors import ConfigError
from kind_core.samplers import FIRST_ORDER, Distillation
from kind_train.config import KEEPS_MATRICES, TrainConfig


def make_student(config: TrainConfig) -> ModelConfig:
    """The config of a student of `config.teacher`; raises ConfigError where that cannot be distilled.

    https://arxiv.org/abs/2510.24474: the first two thirds of the blocks see where a step begins, the others where it
    ends. There are no new parameters, and where both are one time the student is its teacher.
    """
    assert config.teacher is not None
    teacher = read_config(Path(config.teacher))
    _require_teacher(config.teacher, teacher)
    guidance = teacher.diffusion.guidance_scale if config.guidance is None else config.guidance
    kept = hash_learngene(Path(config.teacher)) if config.train in KEEPS_MATRICES else None
    distillation = Distillation(steps=config.steps, guidance_scale=guidance, learngene=kept)
    diffusion = replace(
        teacher.diffusion,
        sampler=FIRST_ORDER,
        sampler_settings={},
        steps=config.steps[0],
        guidance_scale=1.0,
        distillation=distillation,
    )
    depth = teacher.dit.depth
    return replace(teacher, dit=replace(teacher.dit, end_blocks=depth - 2 * depth // 3), diffusion=diffusion)


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
