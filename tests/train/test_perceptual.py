"""The perceptual term: what it measures, whom it touches, and where it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from tiny_training import make_config, make_photos, run_losses, write_folder
from torch import Tensor
from torch.nn import functional as F

from kind_core.checkpoint import read_config
from kind_core.config import DiffusionConfig
from kind_core.errors import ConfigError
from kind_train.cli import main
from kind_train.evaluate.features import load_network
from kind_train.objective import Objective
from kind_train.run.terms.perceptual import MAX_NOISE, FirstStages, PerceptualDistance
from kind_train.run.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def distance() -> PerceptualDistance:
    return PerceptualDistance(FirstStages(CPU))


@pytest.fixture
def photos() -> Tensor:
    coarse = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return F.interpolate(coarse, 64, mode="nearest")


def test_it_is_the_distance_of_the_classifiers_own_features(distance: PerceptualDistance, photos: Tensor) -> None:
    network, other = load_network("cpu"), photos.roll(1, 0)

    def observe(images: Tensor) -> list[Tensor]:
        x = network._swish(network._bn0(network._conv_stem(((images + 1) * 127.5 - 127) / 128)))
        features = [x]
        for index, block in enumerate(network._blocks[:8]):
            x = block(x)
            features += [x] if index in (2, 4, 7) else []
        return [F.normalize(one, dim=1) for one in features]

    with torch.no_grad():
        parts = [(a - b).square().sum(1).mean((1, 2)) for a, b in zip(observe(photos), observe(other), strict=True)]
    expected = torch.stack(parts).mean(0)
    torch.testing.assert_close(distance(photos, other), expected, rtol=1e-3, atol=1e-4)
    assert expected.min() > 0.1
    assert distance(photos, photos).abs().max() == 0


def test_a_blur_is_farther_than_noise_of_the_same_squared_error(distance: PerceptualDistance, photos: Tensor) -> None:
    blurred = F.avg_pool2d(photos, 5, stride=1, padding=2, count_include_pad=False)
    error = (blurred - photos).square().mean().sqrt()
    brighter = photos + error
    assert (distance(blurred, photos) > 2 * distance(brighter, photos)).all()


def test_gradients_reach_the_pictures_alone(distance: PerceptualDistance, photos: Tensor) -> None:
    pictures, wanted = photos.roll(1, 0).requires_grad_(), photos.clone().requires_grad_()
    distance(pictures, wanted).sum().backward()  # type: ignore[no-untyped-call]
    assert pictures.grad is not None
    assert pictures.grad.abs().sum() > 0
    assert wanted.grad is None


@pytest.mark.parametrize(
    ("schedule", "prediction"),
    [("linear", "epsilon"), ("linear", "v_prediction"), ("linear", "sample"), ("flow", "flow_prediction")],
)
def test_the_right_answer_implies_the_photo(schedule: str, prediction: str, photos: Tensor) -> None:
    objective = Objective(DiffusionConfig(noise_schedule=schedule, prediction_type=prediction), CPU)
    noise, timesteps = (
        torch.randn(photos.shape, generator=torch.Generator().manual_seed(1)),
        torch.tensor([0, 300, 600]),
    )
    noisy, target = (f(photos, noise, timesteps) for f in (objective.add_noise, objective.target))
    torch.testing.assert_close(objective.predicted_image(target, noisy, timesteps), photos, rtol=1e-3, atol=1e-3)


def test_much_noise_closes_the_gate() -> None:
    flow = Objective(DiffusionConfig(noise_schedule="flow", prediction_type="sample"), CPU)
    torch.testing.assert_close(flow.share_of_noise(torch.tensor([499, 699])), torch.tensor([0.5, MAX_NOISE]))
    steep = Objective(DiffusionConfig(noise_schedule="squaredcos_cap_v2", prediction_type="sample"), CPU)
    # alpha equals sigma half way, and near the end there is noise alone
    torch.testing.assert_close(
        steep.share_of_noise(torch.tensor([496, 999])), torch.tensor([0.5, 1.0]), atol=5e-3, rtol=0
    )


@pytest.mark.usefixtures("tiny")
def test_a_run_minimises_it_besides_and_says_so(tmp_path: Path) -> None:
    plain, both = run_losses(tmp_path / "plain"), run_losses(tmp_path / "both", perceptual=0.5)
    assert both[0] > plain[0]  # the same weights, photos and noise, and a term more
    assert read_config(tmp_path / "plain" / "best").provenance.training == ""
    assert "weight 0.5 by EfficientNet-Lite0" in read_config(tmp_path / "both" / "best").provenance.training
    names = {file.name for file in (tmp_path / "both" / "best").rglob("*") if file.is_file()}
    assert names == {file.name for file in (tmp_path / "plain" / "best").rglob("*") if file.is_file()}


@pytest.mark.usefixtures("tiny")
def test_the_term_that_is_not_finite_is_named(tmp_path: Path) -> None:
    trainer = Trainer(make_config(tmp_path, perceptual=0.5), make_photos(), make_photos(seed=1))
    trainer.losses._distance = lambda pictures, photos: pictures.sum((1, 2, 3)) / 0  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="the perceptual term is nan at step 1 of 12"):
        trainer.run()


@pytest.mark.parametrize(("option", "weight"), [("perceptual", "0.15"), ("repa", "0.5")])
def test_latents_are_refused_before_data_is_read(tmp_path: Path, option: str, weight: str) -> None:
    write_folder(tmp_path / "photos", make_photos(6))
    next((tmp_path / "photos").rglob("*.png")).write_bytes(b"would be told of")
    arguments = ["fit", "--data", str(tmp_path / "photos"), "--output", str(tmp_path / "run"), f"--{option}", weight]
    result = CliRunner().invoke(main, [*arguments, "--preset", "kind-b/2"])
    assert result.exit_code == 1
    assert f"{option} is {weight}, but preset 'kind-b/2' is of latents" in result.stderr
    assert f"--{option}" in result.stderr
    assert "--preset sample" in result.stderr
    assert not (tmp_path / "run").exists()
