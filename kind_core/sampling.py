"""The reference sampler: the gated model driven by a diffusers scheduler. Every artifact is held against it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kind_core.config import DiffusionConfig
from kind_core.samplers import Sampling
from kind_core.schedule import make_scheduler, step_times


def predict_guided(
    model: Callable[..., Tensor],
    latents: Tensor,
    timestep: Tensor,
    labels: Tensor,
    gates: Tensor,
    guidance: float | None,
    end: Tensor | None = None,
) -> Tensor:
    """Network output under classifier-free guidance, `null + guidance * (class - null)`, shaped like `latents`.

    The null half has the null label and no open gate: the learngene alone. labels and gates are those of `KindDiT`.
    A distilled model is told the `end` of the step and has no null half: its guidance is None.
    """
    if guidance is None:
        t = timestep.to(latents.device, torch.float32).expand(latents.shape[0])
        r = t if end is None else end.to(latents.device, torch.float32).expand(latents.shape[0])
        predicted: Tensor = model(latents, t, labels, gates, ends=r)
        return predicted[:, : latents.shape[1]]
    t = timestep.to(latents.device, torch.float32).expand(2 * latents.shape[0])
    both = model(latents.repeat(2, 1, 1, 1), t, _with_null(labels), _with_null(gates))
    conditional, null = both[:, : latents.shape[1]].chunk(2)
    result: Tensor = null + guidance * (conditional - null)
    return result


@torch.no_grad()
def sample_latents(
    model: Callable[..., Tensor],
    config: DiffusionConfig,
    noise: Tensor,
    labels: Tensor,
    gates: Tensor,
    sampling: Sampling,
) -> Tensor:
    """Latents after the whole trajectory, from start `noise` (batch, channels, size, size) of unit variance."""
    return sample_trajectory(model, config, noise, labels, gates, sampling)[-1]


@torch.no_grad()
def sample_trajectory(
    model: Callable[..., Tensor],
    config: DiffusionConfig,
    noise: Tensor,
    labels: Tensor,
    gates: Tensor,
    sampling: Sampling,
) -> list[Tensor]:
    """All latents of the trajectory: `steps + 1` tensors, the scaled start noise first."""
    scheduler: Any = make_scheduler(config, sampling.sampler, sampling.steps)
    trajectory = [noise * sampling.initial_noise_scale]
    for index in range(sampling.steps):
        timestep, end = step_times(scheduler, index)
        output = predict_guided(model, trajectory[-1], timestep, labels, gates, sampling.scale_at(index), end)
        trajectory.append(scheduler.step(output, timestep, trajectory[-1]).prev_sample)
    return trajectory


def to_images(latents: Tensor) -> Tensor:
    """Pixel-space latents in [-1, 1] to RGB in [0, 1], clamped."""
    return (latents * 0.5 + 0.5).clamp(0, 1)


def to_pixels(images: Tensor) -> np.ndarray:
    """Images (batch, 3, height, width) in [0, 1] to RGB pixels, uint8 (batch, height, width, 3)."""
    return (images * 255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _with_null(choice: Tensor) -> Tensor:
    """Labels or gates of the batch, then as many null labels or closed gates in the same form."""
    return torch.cat([choice, torch.full_like(choice, -1 if choice.dtype == torch.long else 0)])
