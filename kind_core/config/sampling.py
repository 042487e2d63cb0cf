"""Whether what is asked of a sampler goes with a checkpoint: known from its config alone. No torch is loaded."""

from __future__ import annotations

from dataclasses import replace

from kind_core.config.diffusion import DiffusionConfig
from kind_core.errors import ConfigError
from kind_core.samplers import ALL_STEPS, FIRST_ORDER, SAMPLERS


def check_choice(
    config: DiffusionConfig,
    sampler: str | None,
    steps: int | None,
    guidance: float | None,
    interval: tuple[float, float],
    *,
    force_steps: bool = False,
) -> None:
    """Raise ConfigError where a sampler or steps, of which None is the checkpoint's own, do not go with it.

    A distilled model takes no `guidance` and no `interval` of it, and other `steps` than it was trained for only with
    `force_steps`.
    """
    steps = config.steps if steps is None else steps
    if config.distillation is not None:
        if guidance is not None:
            raise config.distillation.refuse_guidance("guidance")
        if interval != ALL_STEPS:
            raise config.distillation.refuse_guidance("guidance-interval")
        if not force_steps:
            config.distillation.require_steps(steps)
    check_steps(config, steps)
    check_sampler(config, config.sampler if sampler is None else sampler)


def choose_defaults(
    config: DiffusionConfig, *, sampler: str | None = None, steps: int | None = None, guidance: float | None = None
) -> DiffusionConfig:
    """The same with other sampling defaults where they are given; raises ConfigError for a sampler that does not go."""
    is_other = sampler not in (None, config.sampler)
    chosen = replace(
        config,
        sampler=config.sampler if sampler is None else sampler,
        sampler_settings={} if is_other else config.sampler_settings,
        steps=config.steps if steps is None else steps,
        guidance_scale=config.guidance_scale if guidance is None else guidance,
    )
    if sampler is not None:
        check_sampler(chosen, sampler)
    return chosen


def check_steps(config: DiffusionConfig, steps: int) -> None:
    """Raise ConfigError where a schedule has not so many steps."""
    if steps < 1 or steps > config.num_train_timesteps:
        raise ConfigError(f"steps is {steps}, expected 1 to {config.num_train_timesteps}, the num_train_timesteps")


def allowed_samplers(config: DiffusionConfig) -> tuple[str, ...]:
    """The samplers that know the schedule and what the network predicts; diffusers' Euler steps take a velocity."""
    if config.distillation is not None:
        return (FIRST_ORDER,)  # of another solver's steps it has learnt nothing
    is_flow, is_velocity = config.noise_schedule == "flow", config.prediction_type == "flow_prediction"
    if not is_flow:
        return tuple(row.name for row in SAMPLERS.values() if row.diffusion is not None)
    rows = [row for row in SAMPLERS.values() if row.flow is not None and (is_velocity or not row.velocity_only)]
    return tuple(row.name for row in sorted(rows, key=lambda row: not row.velocity_only))


def check_sampler(config: DiffusionConfig, sampler: str) -> None:
    """Raise ConfigError where a sampler does not go with a checkpoint's schedule or prediction."""
    allowed = allowed_samplers(config)
    if sampler not in allowed:
        raise ConfigError(
            f"sampler {sampler!r} does not go with the checkpoint's noise schedule {config.noise_schedule!r} "
            f"and prediction type {config.prediction_type!r}",
            f"use --sampler {' or '.join(allowed)}",
        )
