"""Which samplers there are, the settings of one trajectory, and what a few-step model was distilled for. No torch.

A program holds a sampler as a table of coefficients (see `kind_core.schedule`), so a checkpoint may give it those
settings of diffusers' schedulers that leave a step linear: none that clips, thresholds or draws noise within it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from kind_core.errors import ConfigError

MAX_GUIDANCE = 100.0  # either way; pictures are gone long before
Setting = bool | int | float | str
Allowed = type | tuple[Setting, ...]
_SPACINGS = ("leading", "linspace", "trailing")
_SIGMAS: dict[str, type] = dict.fromkeys(("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"), bool)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampler:
    """A scheduler of diffusers by its class's name, and what it is built with for the schedules that it knows.

    `diffusion` and `flow`: the arguments for a noise schedule of betas and for `flow`; None where it knows none.
    `settings` are those that a checkpoint may have otherwise, with the values that each may have or their type.
    `velocity_only`: it takes what a `flow_prediction` network predicts, and no other, so it is told nothing of either.
    """

    name: str
    scheduler: str
    diffusion: Mapping[str, object] | None = None
    flow: Mapping[str, object] | None = None
    velocity_only: bool = False
    settings: Mapping[str, Allowed] = field(default_factory=dict)

    def check_settings(self, settings: Mapping[str, object]) -> None:
        """Raise ConfigError for the first of `settings` that the sampler does not have, or not with that value."""
        for name, value in settings.items():
            if name not in self.settings:
                known = ", ".join(self.settings)
                raise ConfigError(f"sampler {self.name!r} has no setting {name!r}, expected one of {known}")
            check_setting(name, value, self.settings[name])


# A step of it along a straight path is the straight line to where the network's picture lies: an Euler step.
FIRST_ORDER = "dpmpp1"
_LAST_SIGMA = {"final_sigmas_type": "zero"}
_SECOND_ORDER = {"algorithm_type": "dpmsolver++", "solver_order": 2, **_LAST_SIGMA}
SAMPLERS = {
    row.name: row
    for row in (
        Sampler(
            name="ddim",
            scheduler="DDIMScheduler",
            diffusion={"clip_sample": False},
            settings={"timestep_spacing": _SPACINGS, "steps_offset": int, "set_alpha_to_one": bool},
        ),
        Sampler(
            name="dpmpp",
            scheduler="DPMSolverMultistepScheduler",
            diffusion=_SECOND_ORDER,
            flow={"use_flow_sigmas": True, **_LAST_SIGMA},
            settings={
                "timestep_spacing": _SPACINGS,
                "steps_offset": int,
                "solver_order": (1, 2),
                "solver_type": ("midpoint", "heun"),
                "algorithm_type": ("dpmsolver", "dpmsolver++"),
                "lower_order_final": bool,
                "euler_at_final": bool,
                "use_lu_lambdas": bool,
                "flow_shift": float,
                "final_sigmas_type": ("zero", "sigma_min"),
                "lambda_min_clipped": float,
                **_SIGMAS,
            },
        ),
        Sampler(
            name=FIRST_ORDER,
            scheduler="DPMSolverMultistepScheduler",
            flow={**_SECOND_ORDER, "solver_order": 1, "use_flow_sigmas": True},
        ),
        Sampler(
            name="euler",
            scheduler="FlowMatchEulerDiscreteScheduler",
            flow={},
            velocity_only=True,
            settings={"shift": float, "shift_terminal": float, **_SIGMAS},
        ),
    )
}


def check_setting(name: str, value: object, expected: Allowed, source: str = "") -> None:
    """Raise ConfigError, naming `source`, unless `value` is one of `expected` or of that type and finite."""
    if isinstance(expected, tuple):
        is_right = any(type(value) is type(one) and value == one for one in expected)
        words = f"one of {', '.join(map(str, expected))}"
    else:
        is_right = isinstance(value, bool) if expected is bool else _is_number(value)
        is_right = is_right and (expected is not int or isinstance(value, int))
        words = {bool: "true or false", int: "a whole number"}.get(expected, "a finite number")
    if not is_right:
        raise ConfigError(f"{source}{name} is {value!r}, expected {words}")


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
    the interval unless a bundle says otherwise. Without `takes_guidance` all steps are alike: what guidance does is
    built into the network.
    """

    sampler: str
    steps: int
    guidance_scale: float
    guidance_interval: tuple[float, float] = ALL_STEPS
    initial_noise_scale: float = 1.0
    guided: tuple[bool, ...] = ()
    takes_guidance: bool = True

    def __post_init__(self) -> None:
        check_interval(self.guidance_interval)
        if not self.guided:
            low, high = self.guidance_interval
            object.__setattr__(self, "guided", tuple(low <= i / self.steps < high for i in range(self.steps)))

    @property
    def guided_steps(self) -> tuple[int, ...] | None:
        """The steps that are guided; None where all of them are."""
        return None if all(self.guided) else tuple(index for index, is_on in enumerate(self.guided) if is_on)

    def scale_at(self, index: int, guidance_scale: float | None = None) -> float | None:
        """The guidance scale in step `index`, 1 where it is not guided; another than the default may be given.

        None where the network takes no guidance.
        """
        if not self.takes_guidance:
            return None
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Distillation:
    """`steps` are the numbers of steps that were trained, most first. `guidance_scale` and `guidance_interval` are the
    teacher's, which the student's own answer holds: it predicts the class alone. `teacher` is the sha256 of its
    learngene, `learngene` the same where all matrices of that are in the student's: what was adapted beside it then
    serves the student.

    From https://arxiv.org/abs/2510.24474: the last blocks see where a step ends (`DiTConfig.end_blocks`).
    """

    steps: tuple[int, ...]
    guidance_scale: float
    guidance_interval: tuple[float, float] = ALL_STEPS
    learngene: str | None = None
    teacher: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.steps, tuple) or not self.steps or not all(map(_is_count, self.steps)):
            raise ConfigError(f"distilled steps are {self.steps!r}, expected whole numbers from 1, for example 4,2,1")
        if list(self.steps) != sorted(set(self.steps), reverse=True):
            raise ConfigError(f"distilled steps are {self.describe_steps()}, expected each once, the most first")
        numbers = (self.guidance_scale, *self.guidance_interval)
        if not all(_is_number(one) for one in numbers) or len(self.guidance_interval) != 2:
            raise ConfigError(f"distilled guidance is {numbers!r}, expected a scale and an interval of two numbers")
        for name in ("learngene", "teacher"):
            value = getattr(self, name)
            if not isinstance(value, str | None):
                raise ConfigError(f"distilled {name} is {value!r}, expected the sha256 of the teacher's or none")
        check_interval(self.guidance_interval)

    @classmethod
    def from_dict(cls, data: object) -> Distillation:
        """Of `config.json` or a manifest; raises ConfigError for what does not fit."""
        names = {one.name for one in fields(cls)}
        if not isinstance(data, Mapping) or not set(data) <= names or not {"steps", "guidance_scale"} <= set(data):
            raise ConfigError(f"distillation is {data!r}, expected an object of {', '.join(sorted(names))}")
        given: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in data.items()}
        return cls(**given)

    def to_dict(self) -> dict[str, object]:
        """As `config.json` and a manifest hold it."""
        held = {name: value for name, value in asdict(self).items() if value is not None}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in held.items()}

    def describe_steps(self) -> str:
        """`4, 2, 1`."""
        return ", ".join(map(str, self.steps))

    def refuse_guidance(self, option: str) -> ConfigError:
        """The error for an `option` that a model without a null half cannot follow."""
        return ConfigError(
            f"guidance {self.guidance_scale:g} is built in; --{option} does not apply",
            f"leave out --{option}, or take the model that this one was distilled from",
        )

    def require_steps(self, steps: int) -> None:
        """Raise ConfigError where `steps` were not trained."""
        if steps not in self.steps:
            raise ConfigError(
                f"steps is {steps}, but the model was distilled for {self.describe_steps()}",
                f"take --steps {self.steps[0]}, or add --force-steps for pictures that are only approximate",
            )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
