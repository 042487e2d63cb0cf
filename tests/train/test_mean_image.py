"""What held-out losses are held against: the guess that knows the mean of the photos and no shapes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_training import make_config, make_photos

from kind_core.checkpoint import read_config
from kind_core.config import DiffusionConfig, TrainingRecord
from kind_core.errors import ConfigError
from kind_train.objective import Objective
from kind_train.run.scoring import MeanImage, read_mean_image
from kind_train.run.trainer import Trainer

CPU = torch.device("cpu")
KINDS = [
    ("squaredcos_cap_v2", "sample"),
    ("linear", "epsilon"),
    ("linear", "v_prediction"),
    ("flow", "flow_prediction"),
    ("flow", "sample"),
]


@pytest.mark.parametrize(("schedule", "prediction"), KINDS)
def test_no_other_guess_by_pixel_is_closer(schedule: str, prediction: str) -> None:
    """On independent pixels of one mean and variance it is the best there is, in every parametrisation."""
    objective = Objective(DiffusionConfig(noise_schedule=schedule, prediction_type=prediction), CPU)
    generator = torch.Generator().manual_seed(0)
    images = 0.3 + 0.5 * torch.randn(200, 3, 8, 8, generator=generator)
    noise = torch.randn(images.shape, generator=generator)
    timesteps = torch.randint(50, 950, (200,), generator=generator)
    noisy, told = objective.add_noise(images, noise, timesteps), objective.condition(timesteps)
    mean = torch.full((3, 8, 8), 0.3)

    def loss(guess: MeanImage) -> float:
        return float(objective.loss(guess.answer(objective, noisy, told), images, noise, timesteps).mean())

    best = loss(MeanImage(mean=mean, variance=0.25))
    others = [MeanImage(mean=mean, variance=v) for v in (1e-6, 0.1, 0.6, 1e6)] + [MeanImage(mean=-mean, variance=0.25)]
    assert all(best < loss(other) for other in others)
    answer = objective.answer(images, noisy, timesteps)
    torch.testing.assert_close(objective.predicted_image(answer, noisy, timesteps), images, atol=1e-3, rtol=1e-3)


def test_mean_and_variance_are_those_of_the_photos() -> None:
    photos = make_photos(7)
    images = photos.images.double() / 127.5 - 1
    found = read_mean_image(photos, CPU)
    torch.testing.assert_close(found.mean.double(), images.mean(0), atol=1e-6, rtol=0)
    assert found.variance == pytest.approx(float((images - images.mean(0)).square().mean()))


@pytest.mark.usefixtures("tiny")
def test_a_run_writes_how_far_it_came_and_a_longer_one_comes_further(tmp_path: Path) -> None:
    shares = []
    for images in (8, 1200):
        output = tmp_path / str(images)
        Trainer(make_config(output, images=images, ema_decay=0.9), make_photos(), make_photos(seed=1)).run()
        training = read_config(output / "last").training
        assert training is not None
        assert training.share is not None
        assert (training.images, training.is_barely_trained) == (images, training.share > 0.5)
        shares.append(training.share)
    assert shares[0] > 0.9 > shares[1]


def test_of_two_records_the_weaker_is_told() -> None:
    far = TrainingRecord(images=9000, held_out_loss=0.2, mean_image_loss=1.0)
    near = TrainingRecord(images=10, held_out_loss=0.9, mean_image_loss=1.0)
    assert far.weaker(near) == near.weaker(far) == near
    assert far.weaker(None) == far
    assert not TrainingRecord(images=3).is_barely_trained
    assert near.to_dict() == {"images": 10, "held_out_loss": 0.9, "mean_image_loss": 1.0}
    with pytest.raises(ConfigError, match="training held_out_loss is 'low', expected a number"):
        TrainingRecord(images=3, held_out_loss="low")  # type: ignore[arg-type]  # as a file may say
