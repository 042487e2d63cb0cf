"""What a step is tried on: every step of the reference's trajectory, other guidance scales, and larger latents.

A scale that is only ever the default, or latents that never leave the reference's own range, would let a clamp pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kind_core.samplers import Sampling
from kind_export.verify.reference import Reference, Trajectory
from kind_runtimes.loop import Loop

# Beyond what the reference's own noise reaches: another seed goes further.
GAIN = 1.5
# Too near to no guidance at all to tell whether a step is guided.
_MIN_GUIDANCE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """One step taken alone: what goes in, and what the eager model makes of it. `denoised` is what history holds."""

    index: int
    guidance: float
    latents: np.ndarray
    history: np.ndarray
    expected: np.ndarray
    denoised: np.ndarray | None
    gain: float = 1.0

    def describe(self) -> str:
        """In words, for an error."""
        larger = "" if self.gain == 1 else f" from latents {self.gain:g} times as large"
        return f"{self.index} at guidance {self.guidance:g}{larger}"

    def inputs(self, loop: Loop, class_index: int) -> Mapping[str, np.ndarray]:
        """What a step takes, but the index itself and the guidance."""
        given = {**loop.choose_class(class_index), "latents": self.latents}
        return given | {"history": self.history} if "history" in loop.input_names else given


def make_probes(reference: Reference, trajectory: Trajectory) -> tuple[Probe, ...]:
    """All steps at one scale, in order; a guided one at 0 and 1; first, middle and last from larger latents."""
    steps, scale = reference.sampling.steps, sweep_scale(reference.sampling)
    tried = [(index, scale, 1.0) for index in range(steps)]
    middle = middle_guided(reference)
    if middle is not None:
        tried += [(middle, other, 1.0) for other in (0.0, 1.0)]
    tried += [(index, scale, GAIN) for index in sorted({0, steps // 2, steps - 1})]
    return tuple(_make_probe(reference, trajectory, *one) for one in tried)


def step_indices(steps: int) -> tuple[int, ...]:
    """First, second, a quarter, the middle and the last: the ends are where tables are off by one."""
    return tuple(sorted({0, min(1, steps - 1), steps // 4, steps // 2, steps - 1}))


def tried_scales(sampling: Sampling) -> tuple[float, ...]:
    """All scales at which steps are tried; where the network takes none, the class alone."""
    if not sampling.takes_guidance:
        return (sweep_scale(sampling),)
    return sweep_scale(sampling), 0.0, 1.0, *line_scales(sampling.guidance_scale)


def sweep_scale(sampling: Sampling) -> float:
    """The default, or one that differs from no guidance clearly where the network takes any."""
    guidance = sampling.guidance_scale
    if not sampling.takes_guidance:
        return guidance
    return guidance if abs(guidance - 1) >= _MIN_GUIDANCE else guidance + 1.5


def line_scales(guidance: float) -> tuple[float, ...]:
    """A negative scale, an uneven one and a large one: rounded, clamped or without its sign they show."""
    return -1.7437, round(guidance + 1.2637, 4), 97.31


def middle_guided(reference: Reference) -> int | None:
    """The middle one of the steps that take a guidance scale, if there are any."""
    if not reference.sampling.takes_guidance:
        return None
    guided = [index for index, is_on in enumerate(reference.sampling.guided) if is_on]
    return guided[len(guided) // 2] if guided else None


def _make_probe(reference: Reference, trajectory: Trajectory, index: int, guidance: float, gain: float) -> Probe:
    history = trajectory.denoised[index - 1] if index and trajectory.denoised else np.zeros_like(trajectory.latents[0])
    if gain == 1 and guidance == reference.sampling.guidance_scale:  # as the trajectory itself went on
        expected = trajectory.latents[index + 1]
        denoised = trajectory.denoised[index] if trajectory.denoised else None
    else:
        expected, denoised = reference.step(trajectory, index, guidance, gain)
    return Probe(
        index=index,
        guidance=guidance,
        latents=trajectory.latents[index] * np.float32(gain),
        history=history * np.float32(gain),
        expected=expected,
        denoised=denoised,
        gain=gain,
    )
