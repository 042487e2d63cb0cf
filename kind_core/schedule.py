"""Noise schedules and samplers: diffusers' schedulers, and the numbers that a program needs, read from them.

A sampler step is linear in the latents, the network's output and, for a multistep sampler, one tensor it keeps:

    latents' = latents * A_i + output * B_i + history * C_i
    history' = latents * P_i + output * Q_i                  (the denoised image, in diffusers' multistep solvers)

`read_sampler_table` finds A, B, C, P and Q by feeding the real scheduler unit inputs, so there is no second
implementation to keep equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kind_core.config import DiffusionConfig
from kind_core.config.sampling import check_choice, check_sampler, check_steps
from kind_core.console.quiet import without_import_noise
from kind_core.errors import ConfigError
from kind_core.samplers import ALL_STEPS, SAMPLERS, Sampling


def make_scheduler(config: DiffusionConfig, sampler: str, steps: int) -> Any:
    """The diffusers scheduler for a checkpoint's schedule, with its `steps` timesteps set.

    Which it is stands in `SAMPLERS`: `ddim` with eta 0; `dpmpp` as DPM-Solver++(2M); `euler` for networks that predict
    the velocity of a `flow` schedule. Raises ConfigError where the settings make no sampler.
    """
    check_steps(config, steps)
    scheduler = build_scheduler(config, sampler)
    try:
        scheduler.set_timesteps(steps)
    except (ValueError, IndexError, ArithmeticError) as error:
        raise _refuse(sampler, config, " ".join(str(error).split())) from error
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # where two timesteps are the same number, it would begin at the second
    times = scheduler.timesteps
    if len(times) != steps:
        raise _refuse(sampler, config, f"it takes {len(times)} steps of {steps}")
    levels = torch.cat([getattr(scheduler, name, torch.zeros(1)).float() for name in ("sigmas", "alphas_cumprod")])
    if not (times.min() >= 0 and times.max() <= config.num_train_timesteps and levels.isfinite().all()):
        raise _refuse(sampler, config, f"its timesteps run from {times.max():g} to {times.min():g}")
    return scheduler


def step_times(scheduler: Any, index: int) -> tuple[Tensor, Tensor]:
    """The timestep that step `index` of a scheduler begins at, and the one that it ends at."""
    times = scheduler.timesteps
    return times[index], times[index + 1] if index + 1 < len(times) else torch.zeros_like(times[index])


def choose_sampling(
    config: DiffusionConfig,
    *,
    sampler: str | None = None,
    steps: int | None = None,
    guidance_scale: float | None = None,
    guidance_interval: tuple[float, float] = ALL_STEPS,
    force_steps: bool = False,
) -> Sampling:
    """The sampling that is asked for, the checkpoint's own where nothing is; raises ConfigError for a misfit.

    A distilled model takes no guidance, and other `steps` than it was trained for only with `force_steps`.
    """
    check_choice(config, sampler, steps, guidance_scale, guidance_interval, force_steps=force_steps)
    sampler = config.sampler if sampler is None else sampler
    steps = config.steps if steps is None else steps
    scale = config.guidance_scale if guidance_scale is None else guidance_scale
    return Sampling(
        sampler=sampler,
        steps=steps,
        guidance_scale=scale if config.distillation is None else 1.0,  # the class alone: the scale is in the network
        guidance_interval=guidance_interval,
        initial_noise_scale=_initial_noise_scale(make_scheduler(config, sampler, steps)),
        takes_guidance=config.distillation is None,
    )


def _refuse(sampler: str, config: DiffusionConfig, reason: str) -> ConfigError:
    schedule = {name: getattr(config, name) for name in ("num_train_timesteps", "beta_start", "beta_end")}
    settings = ", ".join(f"{name} {value}" for name, value in {**config.sampler_settings, **schedule}.items())
    message = f"sampler {sampler!r} does not go with {settings}: {reason}"
    return ConfigError(message, "choose another --sampler or number of --steps")


def _initial_noise_scale(scheduler: Any) -> float:
    return float(getattr(scheduler, "init_noise_sigma", 1.0))


def build_scheduler(config: DiffusionConfig, sampler: str) -> Any:
    """The same without timesteps; settings of a checkpoint are those of its own sampler, another has none."""
    with without_import_noise():
        import diffusers

    check_sampler(config, sampler)
    row, is_flow = SAMPLERS[sampler], config.noise_schedule == "flow"
    own = row.flow if is_flow else row.diffusion
    arguments: dict[str, object] = {"num_train_timesteps": config.num_train_timesteps, **(own or {})}
    if not row.velocity_only:
        arguments |= {"prediction_type": config.prediction_type, "timestep_spacing": "trailing"}
    if not is_flow:
        betas = {"beta_schedule": config.noise_schedule, "beta_start": config.beta_start, "beta_end": config.beta_end}
        arguments |= betas
    if sampler == config.sampler:
        arguments |= config.sampler_settings
    try:
        return getattr(diffusers, row.scheduler)(**arguments)
    except (ValueError, NotImplementedError, ImportError) as error:
        raise _refuse(sampler, config, " ".join(str(error).split())) from error


def read_noise_levels(config: DiffusionConfig) -> tuple[Tensor, Tensor]:
    """(alpha, sigma) of each train timestep, (num_train_timesteps,) each: noisy = alpha * image + sigma * noise."""
    if config.noise_schedule == "flow":
        sigma = torch.arange(1, config.num_train_timesteps + 1, dtype=torch.float64) / config.num_train_timesteps
        return (1 - sigma).float(), sigma.float()
    scheduler = build_scheduler(config, "ddim")
    alpha_squared = scheduler.alphas_cumprod.double()
    return alpha_squared.sqrt().float(), (1 - alpha_squared).sqrt().float()


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerTable:
    """What a program needs of a sampler. Arrays are (steps,) float32; `timesteps` is what the network is told.

    Without `takes_guidance` the network has no null half.
    """

    timesteps: np.ndarray
    latents: np.ndarray
    output: np.ndarray
    history: np.ndarray
    history_from_latents: np.ndarray
    history_from_output: np.ndarray
    initial_noise_scale: float
    takes_guidance: bool = True

    @property
    def steps(self) -> int:
        return len(self.timesteps)

    @property
    def ends(self) -> np.ndarray:
        """Where each step ends: where the next begins, and the last at the picture, (steps,) float32."""
        return np.append(self.timesteps[1:], np.float32(0))

    @property
    def has_history(self) -> bool:
        """Whether the sampler is multistep, so that programs carry a second tensor."""
        return bool(np.any(self.history))


def read_sampler_table(config: DiffusionConfig, sampler: str, steps: int) -> SamplerTable:
    """Read the coefficients of every step out of the diffusers scheduler.

    One pass: step i is fed a latents tensor that is 1 in slot (0, i) and an output that is 1 in slot (1, i), so every
    result shows what each earlier input contributed to it. Raises ConfigError when the sampler remembers more than one
    step.
    """
    scheduler = make_scheduler(config, sampler, steps)
    response = np.zeros((steps, 2, steps))
    for i, timestep in enumerate(scheduler.timesteps):
        latents, output = torch.zeros(2, 2, steps)
        latents[0, i] = 1
        output[1, i] = 1
        response[i] = scheduler.step(output, timestep, latents).prev_sample.numpy()
    if not np.isfinite(response).all():
        raise _refuse(sampler, config, "a step of it is not finite")
    table = np.zeros((5, steps))
    for i in range(steps):
        table[0, i], table[1, i] = response[i, :, i]
        if i + 1 < steps:
            table[2:, i] = _history_of(response[i + 1, :, i], scheduler, i)
    table[2] = np.roll(table[2], 1)  # found at step i for its use at step i + 1
    if any(np.abs(response[i, :, : i - 1]).max(initial=0) > 0 for i in range(2, steps)):
        raise ConfigError(f"sampler {sampler!r} remembers more than one step", f"use one of {', '.join(SAMPLERS)}")
    if not np.isfinite(table).all():
        raise _refuse(sampler, config, "a step of it is not finite")
    a, b, c, p, q = table.astype(np.float32)
    return SamplerTable(
        timesteps=scheduler.timesteps.numpy().astype(np.float32),
        latents=a,
        output=b,
        history=c,
        history_from_latents=p,
        history_from_output=q,
        initial_noise_scale=_initial_noise_scale(scheduler),
        takes_guidance=config.distillation is None,
    )


def _history_of(later: np.ndarray, scheduler: Any, step: int) -> tuple[float, float, float]:
    """(C of the next step, P, Q of this step) from what this step's inputs contribute to the next step's result.

    `latents * P + output * Q` is the denoised image, as diffusers' `convert_model_output` has it.
    """
    if not later.any():
        return 0.0, 0.0, 0.0
    unit = torch.eye(2)
    scheduler._step_index = step  # the solver converts at the step it stands on; every step has been taken by now
    denoised_from: np.ndarray = scheduler.convert_model_output(unit[1], sample=unit[0]).double().numpy()
    return float(later @ denoised_from / (denoised_from @ denoised_from)), *denoised_from
