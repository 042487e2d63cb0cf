from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

from kind_core.config import DiffusionConfig
from kind_core.errors import ConfigError
from kind_core.schedule import make_scheduler, read_noise_levels, read_sampler_table

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
COMBINATIONS = [
    *itertools.product(BETA_SCHEDULES, ("epsilon", "v_prediction", "sample"), ("ddim", "dpmpp")),
    ("flow", "flow_prediction", "euler"),
    ("flow", "flow_prediction", "dpmpp"),
    ("flow", "sample", "dpmpp"),
]


def _network(latents: torch.Tensor, timestep: float) -> torch.Tensor:
    """A stand-in that is not linear in the latents and differs at every timestep."""
    return torch.tanh(0.3 * latents + 0.002 * timestep) + 0.1 * torch.sin(3 * latents)


def _config(noise_schedule: str, prediction_type: str) -> DiffusionConfig:
    return DiffusionConfig(noise_schedule=noise_schedule, prediction_type=prediction_type)


@pytest.mark.parametrize("steps", [1, 2, 3, 20, 50])
@pytest.mark.parametrize(("noise_schedule", "prediction_type", "sampler"), COMBINATIONS)
def test_the_table_gives_the_schedulers_trajectory(
    noise_schedule: str, prediction_type: str, sampler: str, steps: int
) -> None:
    config = _config(noise_schedule, prediction_type)
    table, scheduler = read_sampler_table(config, sampler, steps), make_scheduler(config, sampler, steps)
    noise = torch.randn(64, generator=torch.Generator().manual_seed(0))
    theirs = noise * float(getattr(scheduler, "init_noise_sigma", 1.0))
    ours, history = noise * table.initial_noise_scale, torch.zeros(64)
    for i, timestep in enumerate(scheduler.timesteps):
        assert table.timesteps[i] == timestep
        theirs = scheduler.step(_network(theirs, float(timestep)), timestep, theirs).prev_sample
        output = _network(ours, float(table.timesteps[i]))
        ours, history = (
            ours * table.latents[i] + output * table.output[i] + history * table.history[i],
            ours * table.history_from_latents[i] + output * table.history_from_output[i],
        )
    assert theirs.std() > 0.02
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


@pytest.mark.parametrize(("noise_schedule", "prediction_type", "sampler"), COMBINATIONS)
def test_only_the_multistep_sampler_carries_history(noise_schedule: str, prediction_type: str, sampler: str) -> None:
    table = read_sampler_table(_config(noise_schedule, prediction_type), sampler, 10)
    assert table.has_history is (sampler == "dpmpp")
    assert table.history[0] == 0
    assert table.steps == 10
    arrays = [
        table.latents,
        table.output,
        table.history,
        table.history_from_latents,
        table.history_from_output,
    ]
    assert all(a.dtype == np.float32 and a.shape == (10,) and np.isfinite(a).all() for a in arrays)


@pytest.mark.parametrize(
    ("noise_schedule", "prediction_type", "sampler", "expected"),
    [
        ("linear", "epsilon", "ddim", DDIMScheduler),
        ("squaredcos_cap_v2", "sample", "dpmpp", DPMSolverMultistepScheduler),
        ("flow", "flow_prediction", "euler", FlowMatchEulerDiscreteScheduler),
        ("flow", "flow_prediction", "dpmpp", DPMSolverMultistepScheduler),
    ],
)
def test_samplers_are_diffusers_schedulers(
    noise_schedule: str, prediction_type: str, sampler: str, expected: type[Any]
) -> None:
    scheduler = make_scheduler(_config(noise_schedule, prediction_type), sampler, 8)
    assert type(scheduler) is expected
    assert len(scheduler.timesteps) == 8


@pytest.mark.parametrize("noise_schedule", BETA_SCHEDULES)
def test_noise_levels_are_those_of_diffusers(noise_schedule: str) -> None:
    config = _config(noise_schedule, "epsilon")
    alpha, sigma = read_noise_levels(config)
    images, noise = torch.full((1000, 1), 2.0), torch.full((1000, 1), -3.0)
    theirs = make_scheduler(config, "ddim", 1).add_noise(images, noise, torch.arange(1000))
    torch.testing.assert_close(alpha[:, None] * images + sigma[:, None] * noise, theirs)


@pytest.mark.parametrize("sampler", ["euler", "dpmpp"])
def test_flow_levels_are_those_that_the_sampler_asks_about(sampler: str) -> None:
    config = _config("flow", "flow_prediction")
    alpha, sigma = read_noise_levels(config)
    torch.testing.assert_close(alpha + sigma, torch.ones(1000))
    scheduler = make_scheduler(config, sampler, 10)
    for timestep, level in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        assert sigma[round(float(timestep)) - 1] == pytest.approx(float(level), abs=1e-3)


@pytest.mark.parametrize(
    ("noise_schedule", "prediction_type", "sampler", "allowed"),
    [
        ("linear", "epsilon", "euler", "ddim or dpmpp"),
        ("flow", "flow_prediction", "ddim", "euler or dpmpp"),
        ("flow", "sample", "euler", "use --sampler dpmpp"),
        ("linear", "epsilon", "heun", "ddim or dpmpp"),
    ],
)
def test_a_sampler_that_does_not_fit_is_named_with_those_that_do(
    noise_schedule: str, prediction_type: str, sampler: str, allowed: str
) -> None:
    with pytest.raises(ConfigError, match=f"sampler {sampler!r} does not go with .*{noise_schedule!r}") as caught:
        read_sampler_table(_config(noise_schedule, prediction_type), sampler, 4)
    assert allowed in caught.value.hint


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_a_wrong_number_of_steps_is_named(steps: int) -> None:
    with pytest.raises(ConfigError, match=f"steps is {steps}, expected 1 to 1000"):
        make_scheduler(DiffusionConfig(), "ddim", steps)


def test_a_sampler_with_a_longer_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def third_order(config: DiffusionConfig, sampler: str, steps: int) -> Any:
        scheduler = DPMSolverMultistepScheduler(solver_order=3, timestep_spacing="trailing")
        scheduler.set_timesteps(steps)
        return scheduler

    monkeypatch.setattr("kind_core.schedule.make_scheduler", third_order)
    with pytest.raises(ConfigError, match="remembers more than one step"):
        read_sampler_table(DiffusionConfig(), "dpmpp", 20)
