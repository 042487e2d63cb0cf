"""What artifacts are held against: the original gated model in fp32, driven by the diffusers scheduler.

Nothing here knows of rewrites, tables or programs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kind_core.checkpoint import Checkpoint
from kind_core.classes import ClassInfo
from kind_core.errors import VerificationError
from kind_core.noise import start_noise
from kind_core.samplers import Sampling
from kind_core.sampling import predict_guided
from kind_core.schedule import make_scheduler, step_times
from kind_export.blending import Opening, describe_openings, opening_inputs, plain_openings

MIN_STD = 0.05
MIN_GATE_EFFECT = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class Trajectory:
    """One class from noise to image. latents: steps + 1 arrays (1, channels, size, size), the scaled noise first.

    denoised[i]: what a multistep scheduler keeps of step i, empty for the others.
    """

    class_index: int
    noise: np.ndarray
    latents: tuple[np.ndarray, ...]
    denoised: tuple[np.ndarray, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """The gated model of a checkpoint with the sampling settings of an export.

    `openings` are the classes that are drawn, each of one or several of the checkpoint's; empty means its own classes.
    """

    checkpoint: Checkpoint
    sampling: Sampling
    openings: tuple[Opening, ...] = ()

    def __post_init__(self) -> None:
        if not self.openings:
            object.__setattr__(self, "openings", tuple(plain_openings(self.checkpoint.config)))

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """What is drawn, in the order of `openings`."""
        return describe_openings(self.checkpoint.config, self.openings)

    @torch.no_grad()
    def run(self, class_index: int, seed: int = 0) -> Trajectory:
        """The whole trajectory of a class."""
        config = self.checkpoint.config
        shape = (1, config.dit.in_channels, config.dit.sample_size, config.dit.sample_size)
        noise = start_noise(seed, shape)
        scheduler = make_scheduler(config.diffusion, self.sampling.sampler, self.sampling.steps)
        latents = [torch.from_numpy(noise) * self.sampling.initial_noise_scale]
        denoised: list[Tensor] = []
        for index, timestep in enumerate(scheduler.timesteps):
            output = self._predict(latents[-1], scheduler, index, class_index, self.sampling.scale_at(index))
            latents.append(scheduler.step(output, timestep, latents[-1]).prev_sample)
            if hasattr(scheduler, "model_outputs"):
                denoised.append(scheduler.model_outputs[-1])
        return Trajectory(
            class_index=class_index,
            noise=noise,
            latents=tuple(t.numpy() for t in latents),
            denoised=tuple(t.numpy() for t in denoised),
        )

    @torch.no_grad()
    def step(
        self, trajectory: Trajectory, index: int, guidance: float, gain: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """(latents, denoised) after step `index` of a trajectory, taken alone with another guidance scale.

        `gain` multiplies what the step takes: the latents and, of a multistep scheduler, what it kept.
        """
        scheduler = make_scheduler(self.checkpoint.config.diffusion, self.sampling.sampler, self.sampling.steps)
        start = max(index - 1, 0)  # the step before it is all that a multistep scheduler remembers
        scheduler.set_begin_index(start) if hasattr(scheduler, "set_begin_index") else None
        for i in range(start, index):
            before = torch.from_numpy(trajectory.latents[i])
            output = self._predict(before, scheduler, i, trajectory.class_index, self.sampling.scale_at(i))
            scheduler.step(output, scheduler.timesteps[i], before)
        latents = torch.from_numpy(trajectory.latents[index]) * gain
        if index and hasattr(scheduler, "model_outputs"):
            scheduler.model_outputs[-1] = scheduler.model_outputs[-1] * gain
        timestep = scheduler.timesteps[index]
        scale = self.sampling.scale_at(index, guidance)
        output = self._predict(latents, scheduler, index, trajectory.class_index, scale)
        advanced = scheduler.step(output, timestep, latents).prev_sample
        kept = scheduler.model_outputs[-1].numpy() if hasattr(scheduler, "model_outputs") else None
        return advanced.numpy(), kept

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Latents (1, channels, size, size) as a picture, (1, 3, height, width) in [0, 1]."""
        return self.checkpoint.decode(torch.from_numpy(latents)).numpy()

    @torch.no_grad()
    def require_testable(self, trajectory: Trajectory) -> None:
        """Raise VerificationError where equality would prove nothing: a flat picture, or a gate without effect."""
        name = self.classes[trajectory.class_index].name
        std = float(trajectory.latents[-1].std())
        if not np.isfinite(std) or std < MIN_STD:
            raise VerificationError(
                f"the eager model's picture of {name!r} is flat: "
                f"standard deviation {std:.3g}, expected {MIN_STD} or more",
                "an untrained checkpoint answers zero and proves nothing; train it or randomise its zero layers",
            )
        if max(self.checkpoint.config.dit.ranks) == 0:
            return
        effect = self._gate_effect(trajectory)
        if not effect > MIN_GATE_EFFECT:
            raise VerificationError(
                f"closing the gate of {name!r} changes the eager model by {effect:.3g} only, "
                f"expected more than {MIN_GATE_EFFECT}",
                "its tailor does nothing, so no check could tell whether it is the right one",
            )

    def _gate_effect(self, trajectory: Trajectory) -> float:
        middle = self.sampling.steps // 2
        latents = torch.from_numpy(trajectory.latents[middle])
        scheduler = make_scheduler(self.checkpoint.config.diffusion, self.sampling.sampler, self.sampling.steps)
        t = scheduler.timesteps[middle].float().reshape(1)
        label, gate = self._open(trajectory.class_index)
        model = self.checkpoint.model
        closed = torch.full_like(gate, -1 if gate.dtype == torch.long else 0)
        difference = model(latents, t, label, gate) - model(latents, t, label, closed)
        return float(difference.abs().max())

    def _predict(self, latents: Tensor, scheduler: Any, index: int, class_index: int, guidance: float | None) -> Tensor:
        timestep, end = step_times(scheduler, index)
        return predict_guided(self.checkpoint.model, latents, timestep, *self._open(class_index), guidance, end)

    def _open(self, class_index: int) -> tuple[Tensor, Tensor]:
        """Label and gate of a class, (1,), or of a blend, (1, classes); past the last is the learngene alone."""
        if class_index == len(self.openings):
            return torch.tensor([-1]), torch.tensor([-1])
        return opening_inputs(self.checkpoint.config.dit.num_classes, self.openings[class_index])
