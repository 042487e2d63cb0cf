from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kind_core.config import DiffusionConfig
from kind_core.dit import KindDiT
from kind_core.noise import start_noise
from kind_core.samplers import Sampling
from kind_core.sampling import predict_guided, sample_latents, sample_trajectory, to_images
from kind_core.schedule import make_scheduler, read_sampler_table
from tiny import tiny_batch, tiny_config, tiny_model

CHOICE = torch.tensor([0, 3])
CLOSED = torch.tensor([-1, -1])
TIMESTEP = torch.tensor(500)
DIFFUSION = DiffusionConfig(noise_schedule="squaredcos_cap_v2", prediction_type="sample")


@pytest.fixture
def latents(model: KindDiT) -> Tensor:
    return tiny_batch(model.config, 2)[0]


@torch.no_grad()
def _guided(model: KindDiT, latents: Tensor, labels: Tensor, gates: Tensor, guidance: float) -> Tensor:
    return predict_guided(model, latents, TIMESTEP, labels, gates, guidance)


@torch.no_grad()
@pytest.mark.parametrize("guidance", [0.0, 1.0, 1.5, 3.0])
def test_guidance_leads_away_from_the_learngene_alone(model: KindDiT, latents: Tensor, guidance: float) -> None:
    timesteps = torch.full((2,), 500.0)
    conditional = model(latents, timesteps, CHOICE, CHOICE)
    null = model(latents, timesteps, CLOSED, CLOSED)
    assert (conditional - null).abs().max() > 1e-2
    expected = null + guidance * (conditional - null)
    torch.testing.assert_close(_guided(model, latents, CHOICE, CHOICE, guidance), expected, rtol=1e-5, atol=1e-5)


def test_mixtures_are_taken_as_labels_and_as_gates(model: KindDiT, latents: Tensor) -> None:
    by_index = _guided(model, latents, CHOICE, CHOICE, 2.0)
    mixture = torch.nn.functional.one_hot(CHOICE, 4).float()
    for labels, gates in ((mixture, CHOICE), (CHOICE, mixture), (mixture, mixture)):
        torch.testing.assert_close(_guided(model, latents, labels, gates, 2.0), by_index, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_blend_of_two_classes_is_guided_against_the_null_label(model: KindDiT, latents: Tensor) -> None:
    labels, gates = torch.tensor([[0.5, 0.5, 0, 0]] * 2), torch.tensor([[1.0, 1, 0, 0]] * 2)
    timesteps = torch.full((2,), 500.0)
    null = model(latents, timesteps, CLOSED, CLOSED)
    expected = null + 2 * (model(latents, timesteps, labels, gates) - null)
    torch.testing.assert_close(_guided(model, latents, labels, gates, 2.0), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_learned_sigma_is_left_out() -> None:
    model = tiny_model(tiny_config(learn_sigma=True))
    latents = tiny_batch(model.config, 2)[0]
    guided = _guided(model, latents, CHOICE, CHOICE, 1.0)
    expected = model(latents, torch.full((2,), 500.0), CHOICE, CHOICE)[:, :3]
    torch.testing.assert_close(guided, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("diffusion", "sampler"),
    [
        (DIFFUSION, "ddim"),
        (DIFFUSION, "dpmpp"),
        (DiffusionConfig(), "ddim"),
        (DiffusionConfig(noise_schedule="flow", prediction_type="flow_prediction"), "euler"),
        (DiffusionConfig(noise_schedule="flow", prediction_type="sample"), "dpmpp"),
    ],
)
def test_the_trajectory_is_that_of_the_sampler_table(model: KindDiT, diffusion: DiffusionConfig, sampler: str) -> None:
    # the programs that are exported step by the table, the reference by the scheduler
    noise = torch.from_numpy(start_noise(1, (2, 3, 8, 8)))
    sampling = Sampling(sampler=sampler, steps=6, guidance_scale=2.0)
    trajectory = sample_trajectory(model, diffusion, noise, CHOICE, CHOICE, sampling)
    assert len(trajectory) == 7
    table = read_sampler_table(diffusion, sampler, 6)
    latents, history = noise * table.initial_noise_scale, torch.zeros_like(noise)
    assert torch.equal(trajectory[0], latents)
    for i in range(6):
        with torch.no_grad():
            output = predict_guided(model, latents, torch.tensor(table.timesteps[i]), CHOICE, CHOICE, 2.0)
        latents, history = (
            latents * table.latents[i] + output * table.output[i] + history * table.history[i],
            latents * table.history_from_latents[i] + output * table.history_from_output[i],
        )
        scale = trajectory[i + 1].abs().max()
        assert (latents - trajectory[i + 1]).abs().max() < 1e-4 * scale
    assert torch.equal(sample_latents(model, diffusion, noise, CHOICE, CHOICE, sampling), trajectory[-1])


def test_every_timestep_reaches_the_network(model: KindDiT) -> None:
    seen: list[float] = []
    model.timestep_embedder.register_forward_pre_hook(lambda _, inputs: seen.append(float(inputs[0][0])))
    noise = torch.from_numpy(start_noise(1, (2, 3, 8, 8)))
    sample_latents(model, DIFFUSION, noise, CHOICE, CHOICE, Sampling(sampler="ddim", steps=5, guidance_scale=1.5))
    assert seen == make_scheduler(DIFFUSION, "ddim", 5).timesteps.tolist()


def test_class_and_seed_show_in_the_picture_and_nothing_else_does(model: KindDiT) -> None:
    def draw(seed: int, choice: int) -> Tensor:
        noise, label = torch.from_numpy(start_noise(seed, (1, 3, 8, 8))), torch.tensor([choice])
        return sample_latents(
            model, DIFFUSION, noise, label, label, Sampling(sampler="dpmpp", steps=4, guidance_scale=1.5)
        )

    assert torch.equal(draw(0, 1), draw(0, 1))
    assert (draw(0, 1) - draw(0, 2)).abs().max() > 1e-2
    assert (draw(0, 1) - draw(1, 1)).abs().max() > 1e-2


def test_sampling_leaves_no_graph(model: KindDiT) -> None:
    noise = torch.from_numpy(start_noise(0, (2, 3, 8, 8)))
    latents = sample_latents(
        model, DIFFUSION, noise, CHOICE, CHOICE, Sampling(sampler="ddim", steps=2, guidance_scale=1.5)
    )
    assert not latents.requires_grad


def test_images_are_clamped_to_the_unit_interval() -> None:
    assert to_images(torch.tensor([-3.0, -1, 0, 1, 3])).tolist() == [0, 0, 0.5, 1, 1]
