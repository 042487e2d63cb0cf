"""How a model is trained on noise, and the sampling settings that suit it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from kind_core.config.checks import require_choice, require_number, require_positive
from kind_core.errors import ConfigError
from kind_core.samplers import FIRST_ORDER, MAX_GUIDANCE, SAMPLERS, Distillation, Setting

NOISE_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "flow")
FLOW_PREDICTIONS = ("flow_prediction", "sample")
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", "flow_prediction")  # the last on a straight path alone
_MOST_TIMESTEPS = 100_000
_LATER_DIFFUSION = ("sampler_settings", "distillation")


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffusionConfig:
    """Noise schedule, what the network predicts, and the sampling settings that suit the checkpoint.

    Schedules are diffusers': the names of `beta_schedule`, or `flow` for a straight path from noise to image, along
    which the network predicts the velocity (`flow_prediction`) or the image (`sample`).
    `sampler`, `steps` and `guidance_scale` are the defaults of export. `sampler_settings` are those that `sampler`,
    and no other, has otherwise than ours (see `kind_core.samplers`). `distillation` is there where the network
    was taught to draw in few steps, which `guidance_scale` then says nothing of.
    """

    noise_schedule: str = "linear"
    prediction_type: str = "epsilon"
    num_train_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    sampler: str = "ddim"
    steps: int = 20
    guidance_scale: float = 1.5
    sampler_settings: Mapping[str, Setting] = field(default_factory=dict, hash=False)
    distillation: Distillation | None = None

    def __post_init__(self) -> None:
        require_choice("noise_schedule", self.noise_schedule, NOISE_SCHEDULES)
        require_choice("prediction_type", self.prediction_type, PREDICTION_TYPES)
        require_positive("num_train_timesteps", self.num_train_timesteps, _MOST_TIMESTEPS)
        require_positive("steps", self.steps, _MOST_TIMESTEPS)
        for name in ("beta_start", "beta_end"):
            require_number(name, getattr(self, name), above=0, below=1)
        require_number("guidance_scale", self.guidance_scale)
        if abs(self.guidance_scale) > MAX_GUIDANCE:
            raise ConfigError(f"guidance_scale is {self.guidance_scale!r:.60}, expected {MAX_GUIDANCE:g} at most")
        require_choice("sampler", self.sampler, tuple(SAMPLERS))
        if not isinstance(self.sampler_settings, Mapping):
            raise ConfigError(f"sampler_settings is {self.sampler_settings!r}, expected an object")
        SAMPLERS[self.sampler].check_settings(self.sampler_settings)
        is_flow = self.noise_schedule == "flow"
        if self.prediction_type not in (FLOW_PREDICTIONS if is_flow else PREDICTION_TYPES[:3]):
            raise ConfigError(
                f"prediction_type {self.prediction_type!r} does not go with noise_schedule {self.noise_schedule!r}",
                "use flow with flow_prediction or sample, and the other schedules with epsilon, v_prediction or sample",
            )
        if self.distillation is not None:
            self._check_distillation(self.distillation)

    def _check_distillation(self, distillation: Distillation) -> None:
        """A distilled network answers with the image that a straight step to its end leads towards."""
        wanted = {"noise_schedule": "flow", "prediction_type": "sample", "sampler": FIRST_ORDER}
        for name, expected in wanted.items():
            if getattr(self, name) != expected:
                raise ConfigError(f"{name} of a distilled model is {getattr(self, name)!r}, expected {expected!r}")
        distillation.require_steps(self.steps)

    def to_dict(self) -> dict[str, object]:
        """As `config.json` holds it; what came later is left out where it says nothing."""
        data = {name: value for name, value in asdict(self).items() if name not in _LATER_DIFFUSION or value}
        return data if self.distillation is None else data | {"distillation": self.distillation.to_dict()}


def on_schedule(diffusion: DiffusionConfig, noise_schedule: str) -> DiffusionConfig:
    """The settings for a model of the same kind trained along another path; one that predicted the noise or a velocity
    predicts the noise, on a straight path its velocity. A sampler that does not know the path gives way to `dpmpp`.
    """
    require_choice("noise_schedule", noise_schedule, NOISE_SCHEDULES)
    if (noise_schedule == "flow") == (diffusion.noise_schedule == "flow"):
        return replace(diffusion, noise_schedule=noise_schedule)
    noise = "flow_prediction" if noise_schedule == "flow" else "epsilon"
    prediction = diffusion.prediction_type if diffusion.prediction_type == "sample" else noise
    return replace(diffusion, noise_schedule=noise_schedule, prediction_type=prediction, sampler="dpmpp")
