"""Which samplers there are, and the settings of one trajectory: one object from a request to a loop. Without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kind_core.errors import ConfigError
from kind_core.sampler_settings import SAMPLER_SETTINGS, Allowed


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampler:
    """A scheduler of diffusers by its class's name, and what it is built with for the schedules that it knows.

    `diffusion` and `flow`: the arguments for a noise schedule of betas and for `flow`; None where it knows none.
    `settings` are those that a checkpoint may have otherwise.
    `velocity_only`: it takes what a `flow_prediction` network predicts, and no other, so it is told nothing of either.
    """

    name: str
    scheduler: str
    diffusion: Mapping[str, Any] | None = None
    flow: Mapping[str, Any] | None = None
    velocity_only: bool = False
    settings: Mapping[str, Allowed] = field(default_factory=dict)


_LAST_SIGMA = {"final_sigmas_type": "zero"}
_SECOND_ORDER = {"algorithm_type": "dpmsolver++", "solver_order": 2, **_LAST_SIGMA}
SAMPLERS = {
    row.name: row
    for row in (
        Sampler(
            name="ddim", scheduler="DDIMScheduler", diffusion={"clip_sample": False}, settings=SAMPLER_SETTINGS["ddim"],
        ),
        Sampler(
            name="dpmpp", scheduler="DPMSolverMultistepScheduler", diffusion=_SECOND_ORDER,
            flow={"use_flow_sigmas": True, **_LAST_SIGMA}, settings=SAMPLER_SETTINGS["dpmpp"],
        ),
        Sampler(
            name="euler", scheduler="FlowMatchEulerDiscreteScheduler", flow={}, velocity_only=True,
            settings=SAMPLER_SETTINGS["euler"],
        ),
    )
}  # fmt: skip


def list_samplers() -> str:
    """The names as a help text has them."""
    usual = [row.name for row in SAMPLERS.values() if row.diffusion is not None]
    flow = [row.name for row in SAMPLERS.values() if row.diffusion is None]
    return f"{', '.join(usual)} or, for flow models, {', '.join(flow)}"


ALL_STEPS = (0.0, 1.0)  # the guidance interval that leaves no step out


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How latents come from noise: `steps` steps of `sampler` from start noise times `initial_noise_scale`.

    A step is guided where lo <= i / steps < hi of `guidance_interval` (https://arxiv.org/abs/2404.07724); the others
    predict the class alone, which is guidance 1 and half of the work. `guided` says it step by step; it follows from
    the interval unless a bundle says otherwise.
    """

    sampler: str
    steps: int
    guidance_scale: float
    guidance_interval: tuple[float, float] = ALL_STEPS
    initial_noise_scale: float = 1.0
    guided: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        check_interval(self.guidance_interval)
        if not self.guided:
            low, high = self.guidance_interval
            object.__setattr__(self, "guided", tuple(low <= i / self.steps < high for i in range(self.steps)))

    @property
    def guided_steps(self) -> tuple[int, ...] | None:
        """The steps that are guided; None where all of them are."""
        return None if all(self.guided) else tuple(index for index, is_on in enumerate(self.guided) if is_on)

    def scale_at(self, index: int, guidance_scale: float | None = None) -> float:
        """The guidance scale in step `index`, 1 where it is not guided; another than the default may be given."""
        if not self.guided[index]:
            return 1.0
        return self.guidance_scale if guidance_scale is None else guidance_scale


def check_interval(interval: tuple[float, float]) -> None:
    """Raise ConfigError where a guidance interval is not two shares of the steps, the lower first."""
    low, high = interval
    if not 0 <= low < high <= 1:
        raise ConfigError(
            f"guidance-interval is {low:g},{high:g}, expected two shares of the steps from 0 to 1, the lower first",
            "for example --guidance-interval 0.2,0.8",
        )
