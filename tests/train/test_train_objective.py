"""Noise, targets and losses are those of diffusers' schedulers."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from kind_core.config import DiffusionConfig
from kind_core.errors import ConfigError
from kind_train.objective import MIN_SIGMA, Objective

SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
TIMESTEPS = torch.tensor([0, 1, 250, 500, 900, 999])


def make_objective(schedule: str = "linear", prediction_type: str = "epsilon") -> Objective:
    config = DiffusionConfig(noise_schedule=schedule, prediction_type=prediction_type)
    return Objective(config, torch.device("cpu"))


def make_ddpm(schedule: str, prediction_type: str = "epsilon") -> DDPMScheduler:
    return DDPMScheduler(
        1000, beta_start=1e-4, beta_end=0.02, beta_schedule=schedule, prediction_type=prediction_type, clip_sample=False
    )


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def noise() -> Tensor:
    return torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_noise_is_added_as_ddpm_adds_it(schedule: str, images: Tensor, noise: Tensor) -> None:
    expected = make_ddpm(schedule).add_noise(images, noise, TIMESTEPS)
    torch.testing.assert_close(make_objective(schedule).add_noise(images, noise, TIMESTEPS), expected)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_velocity_is_ddpms(schedule: str, images: Tensor, noise: Tensor) -> None:
    expected = make_ddpm(schedule).get_velocity(images, noise, TIMESTEPS)
    actual = make_objective(schedule, "v_prediction").target(images, noise, TIMESTEPS)
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_a_scheduler_that_is_given_the_target_finds_the_image(
    prediction_type: str, images: Tensor, noise: Tensor
) -> None:
    objective, scheduler = make_objective("linear", prediction_type), make_ddpm("linear", prediction_type)
    noisy, target = (f(images, noise, TIMESTEPS) for f in (objective.add_noise, objective.target))
    for i, timestep in enumerate(TIMESTEPS[:5]):  # at the last one alpha is so small that epsilon tells little
        found = scheduler.step(target[i], int(timestep), noisy[i]).pred_original_sample
        torch.testing.assert_close(found, images[i], atol=2e-4, rtol=1e-3)


def test_flow_is_the_straight_path_of_flow_match(images: Tensor, noise: Tensor) -> None:
    objective, scheduler = make_objective("flow", "flow_prediction"), FlowMatchEulerDiscreteScheduler(1000)
    told = scheduler.timesteps.flip(0)[TIMESTEPS]  # schedulers count down
    torch.testing.assert_close(objective.condition(TIMESTEPS), told)
    noisy = objective.add_noise(images, noise, TIMESTEPS)
    torch.testing.assert_close(noisy, scheduler.scale_noise(images, told, noise))
    # following the target down to sigma 0 arrives at the image
    sigma = scheduler.sigmas.flip(0)[TIMESTEPS][:, None, None, None]
    torch.testing.assert_close(noisy - sigma * objective.target(images, noise, TIMESTEPS), images)


def test_the_network_is_told_the_timestep_its_scheduler_tells_it() -> None:
    assert torch.equal(make_objective().condition(TIMESTEPS), TIMESTEPS.float())


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_the_right_answer_has_no_loss_and_a_wrong_one_its_mean_square(
    prediction_type: str, images: Tensor, noise: Tensor
) -> None:
    objective = make_objective("linear", prediction_type)
    target = objective.target(images, noise, TIMESTEPS)
    assert objective.loss(target, images, noise, TIMESTEPS).max() == 0
    loss = objective.loss(target + 0.5, images, noise, TIMESTEPS)
    assert loss.shape == (6,)
    if prediction_type != "sample":
        torch.testing.assert_close(loss, torch.full((6,), 0.25))


def test_flow_loss_is_the_error_of_noise_minus_image(images: Tensor, noise: Tensor) -> None:
    loss = make_objective("flow", "flow_prediction").loss(noise - images - 0.5, images, noise, TIMESTEPS)
    torch.testing.assert_close(loss, torch.full((6,), 0.25))


def test_on_a_straight_path_an_image_prediction_is_weighted_as_its_velocity(images: Tensor, noise: Tensor) -> None:
    objective, timesteps = make_objective("flow", "sample"), torch.tensor([49, 200, 400, 600, 800, 999])
    answer = images + torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    time = ((timesteps + 1) / 1000)[:, None, None, None]
    velocity = ((1 - time) * images + time * noise - answer) / time
    expected = (velocity - (noise - images)).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(objective.loss(answer, images, noise, timesteps), expected, atol=1e-5, rtol=1e-4)


def test_times_of_a_straight_path_are_the_sigmoid_of_a_normal() -> None:
    config = DiffusionConfig(noise_schedule="flow", prediction_type="sample")
    objective = Objective(config, torch.device("cpu"), timestep_mean=-0.6, timestep_std=0.8)
    drawn = objective.draw_timesteps(100_000, torch.Generator().manual_seed(0))
    assert (drawn.dtype, drawn.min() >= 0, drawn.max() <= 999) == (torch.long, True, True)
    normal = torch.logit((drawn + 0.5) / 1000)
    assert float(normal.mean()) == pytest.approx(-0.6, abs=0.01)
    assert float(normal.std()) == pytest.approx(0.8, abs=0.01)


def test_other_schedules_draw_every_timestep_alike() -> None:
    drawn = make_objective().draw_timesteps(100_000, torch.Generator().manual_seed(0))
    assert torch.bincount(drawn // 100, minlength=10).tolist() == pytest.approx([10_000] * 10, rel=0.05)
    with pytest.raises(ConfigError, match=r"timestep_mean is -0\.4, but noise_schedule is 'linear'"):
        Objective(DiffusionConfig(), torch.device("cpu"), timestep_mean=-0.4)


def test_an_image_prediction_is_weighted_as_the_velocity_it_implies(images: Tensor, noise: Tensor) -> None:
    objective = make_objective("squaredcos_cap_v2", "sample")
    timesteps = torch.tensor([100, 200, 400, 600, 800, 950])
    assert objective.sigma[timesteps].min() > MIN_SIGMA
    answer = images + torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    alpha, sigma = (level[timesteps][:, None, None, None] for level in (objective.alpha, objective.sigma))
    implied_noise = (objective.add_noise(images, noise, timesteps) - alpha * answer) / sigma
    velocity = alpha * implied_noise - sigma * answer
    expected = (velocity - (alpha * noise - sigma * images)).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(objective.loss(answer, images, noise, timesteps), expected, atol=1e-5, rtol=1e-4)


def test_the_weight_stops_growing_where_there_is_hardly_noise(images: Tensor, noise: Tensor) -> None:
    objective = make_objective("squaredcos_cap_v2", "sample")
    assert objective.sigma[0] < MIN_SIGMA
    loss = objective.loss(images + 0.5, images, noise, torch.zeros(6, dtype=torch.long))
    torch.testing.assert_close(loss, torch.full((6,), 0.25 / MIN_SIGMA**2))


def test_the_channels_of_a_learned_sigma_are_not_trained(images: Tensor, noise: Tensor) -> None:
    objective = make_objective()
    output = torch.cat([noise, torch.full_like(noise, 7.0)], dim=1)
    assert objective.loss(output, images, noise, TIMESTEPS).max() == 0


def test_a_half_precision_answer_is_compared_in_fp32(images: Tensor, noise: Tensor) -> None:
    loss = make_objective().loss(noise.bfloat16(), images, noise, TIMESTEPS)
    assert loss.dtype == torch.float32
    assert 0 < loss.max() < 1e-4
