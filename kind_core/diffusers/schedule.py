"""The scheduler of a diffusers folder as a schedule of this project: carried with all its settings, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from kind_core.config import FLOW_PREDICTIONS, NOISE_SCHEDULES, DiffusionConfig
from kind_core.diffusers.component import Component, read_component, shorten
from kind_core.errors import CheckpointError
from kind_core.samplers import SAMPLERS, Setting, check_setting
from kind_core.schedule import build_scheduler

GUIDANCE_SCALE = 4.0  # the default of diffusers' DiTPipeline
# Read by diffusers only where another setting says so, which is itself refused.
_UNREAD = {"clip_sample_range", "dynamic_thresholding_ratio", "sample_max_value"}
_UNREAD |= {"base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type"}


def read_diffusion(file: Path) -> tuple[str, DiffusionConfig]:
    """The class of the scheduler in `file`, and the schedule that a model was trained and is sampled with.

    Raises CheckpointError for a scheduler that is not known, or does what no program of this project does.
    """
    known = {row.scheduler: row.scheduler for row in SAMPLERS.values()}
    hint = "save the pipeline with one of them: DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)"
    component = read_component(file, known, hint=hint, smallest=0)
    base = _read_schedule(component)
    return component.kind, replace(base, sampler_settings=_carry_settings(component, base))


def _read_schedule(component: Component) -> DiffusionConfig:
    values = component.values
    row = next(row for row in SAMPLERS.values() if row.scheduler == component.kind)
    make = partial(
        DiffusionConfig,
        num_train_timesteps=values["num_train_timesteps"],
        sampler=row.name,
        guidance_scale=GUIDANCE_SCALE,
    )
    if row.diffusion is None or values.get("use_flow_sigmas"):  # Euler takes a velocity and has no word for it
        prediction = values.get("prediction_type", "flow_prediction")
        if prediction not in FLOW_PREDICTIONS:
            expected = f"{' or '.join(FLOW_PREDICTIONS)} where use_flow_sigmas is {values.get('use_flow_sigmas')}"
            raise component.refuse("prediction_type" if "prediction_type" in values else "use_flow_sigmas", expected)
        return make(noise_schedule="flow", prediction_type=prediction)
    if values["beta_schedule"] not in NOISE_SCHEDULES[:-1]:
        raise component.refuse("beta_schedule", f"one of {', '.join(NOISE_SCHEDULES[:-1])}")
    return make(
        noise_schedule=values["beta_schedule"],
        prediction_type=values["prediction_type"],
        beta_start=values["beta_start"],
        beta_end=values["beta_end"],
    )


def _carry_settings(component: Component, base: DiffusionConfig) -> Mapping[str, Setting]:
    """What the folder's scheduler has otherwise than the one that is made of `base`; raises CheckpointError."""
    ours: Mapping[str, object] = build_scheduler(base, base.sampler).config
    known = SAMPLERS[base.sampler].settings
    carried: dict[str, Setting] = {}
    for name, value in component.values.items():
        if value == ours[name] or name in _UNREAD:
            continue
        if name not in known:
            message = f"{component.file} has {name} {shorten(value)}, which is not exported, expected {ours[name]!r}"
            raise CheckpointError(message, "change it in that file where the pictures are as good without it")
        check_setting(name, value, known[name], f"{component.file}: ")
        carried[name] = value
    return carried
