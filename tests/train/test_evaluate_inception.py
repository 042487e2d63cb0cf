"""FID and its kin on a randomly initialised Inception-v3, held against torch-fidelity's own figures."""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fid_packages import mend_torchvision

from kind_core.errors import CheckpointError, ConfigError, DataError, TargetError
from kind_train.evaluate.frechet import compare_frechet, frechet_distance
from kind_train.evaluate.inception import (
    InceptionV3,
    estimate_score,
    find_inception_weights,
    inception_score,
)
from kind_train.evaluate.neighbours import measure_coverage
from kind_train.evaluate.networks import INCEPTION_FILES, open_networks

mend_torchvision()
torch_fidelity = pytest.importorskip("torch_fidelity", reason="pip install 'kind-diffusion[fid]' to compare with it")
pytestmark = pytest.mark.usefixtures("one_thread")


def make_images(n: int, *, seed: int = 0, size: int = 24) -> np.ndarray:
    """Blocks of coloured noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, size // 8, size // 8, 3), np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights whose norms are set by a batch, without which nothing of a picture comes through 20 layers."""
    from torch_fidelity import FeatureExtractorInceptionV3

    class Random(FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> None:
            """What the constructor loads is not there."""

    torch.manual_seed(0)
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    network = Random("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    torch.nn.init.normal_(network.fc.weight, std=0.1)
    with torch.no_grad():
        network(torch.from_numpy(make_images(8, seed=9)).permute(0, 3, 1, 2))
    path = tmp_path_factory.mktemp("inception") / INCEPTION_FILES[0]
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def inception(weights: Path) -> InceptionV3:
    return InceptionV3(weights, sha256_prefix=hashlib.sha256(weights.read_bytes()).hexdigest()[:8])


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return make_images(24)


@pytest.fixture(scope="module")
def observed(inception: InceptionV3, images: np.ndarray) -> dict[str, np.ndarray]:
    return inception.observe(images)


def test_features_are_those_of_torch_fidelity(
    weights: Path, images: np.ndarray, observed: dict[str, np.ndarray]
) -> None:
    theirs = torch_fidelity.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights)
    )
    with torch.inference_mode():
        pooled, logits = theirs(torch.from_numpy(images[:4]).permute(0, 3, 1, 2))
    np.testing.assert_allclose(observed["pooled"][:4], pooled.numpy(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(observed["logits"][:4], logits.numpy(), rtol=1e-3, atol=1e-3)
    assert observed["pooled"].std(0).mean() > 1e-3  # the random network tells pictures apart


def test_spatial_features_are_seven_channels_of_mixed_6d(
    inception: InceptionV3, images: np.ndarray, observed: dict[str, np.ndarray]
) -> None:
    assert observed["spatial"].shape == (24, 2023)  # ADM's 7 channels of 17 x 17
    assert observed["spatial"].min() == 0  # after the ReLU
    seen: list[torch.Tensor] = []
    block = inception._network.Mixed_6d
    handle = block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    again = inception.observe(images[:2])["spatial"]
    handle.remove()
    # the block's output begins with its 1 x 1 branch
    np.testing.assert_allclose(again, seen[0][:, :7].flatten(1).numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", ["pooled", "spatial"])
def test_a_set_is_at_distance_zero_from_itself_in_any_order(observed: dict[str, np.ndarray], name: str) -> None:
    rows = observed[name]
    scale = float(np.trace(np.cov(rows.astype(np.float64).T)))
    assert frechet_distance(rows, rows[::-1]) == pytest.approx(0, abs=1e-9 * scale)
    there, back = frechet_distance(rows[:12], rows[12:]), frechet_distance(rows[:12][::-1], rows[12:])
    assert there == pytest.approx(back, rel=1e-9)
    assert there > 0.01 * scale


def test_the_distance_is_torch_fidelitys_own(observed: dict[str, np.ndarray]) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    a, b = (torch.from_numpy(observed["logits"][part, :16].copy()) for part in (slice(0, 12), slice(12, 24)))
    theirs = fid_statistics_to_metric(fid_features_to_statistics(a), fid_features_to_statistics(b), False)
    ours = compare_frechet(a.numpy(), b.numpy(), num_replicates=1).distance
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)


@pytest.mark.slow
def test_all_figures_are_those_of_calculate_metrics(weights: Path, inception: InceptionV3) -> None:
    class Pictures(torch.utils.data.Dataset[torch.Tensor]):
        def __init__(self, images: np.ndarray) -> None:
            self.images = torch.from_numpy(images).permute(0, 3, 1, 2)

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, index: int) -> torch.Tensor:
            return self.images[index]

    generated, held_out, training = make_images(20), make_images(20, seed=1) // 2 + 60, make_images(20, seed=2)
    theirs = torch_fidelity.calculate_metrics(
        input1=Pictures(generated), input2=Pictures(held_out), feature_extractor_weights_path=str(weights),
        fid=True, isc=True, cuda=False, verbose=False, cache=False, batch_size=16,
    )  # fmt: skip
    ours = inception.compare(*(inception.observe(one) for one in (generated, held_out, training)))
    assert ours["fid"].generated.value == pytest.approx(theirs["frechet_inception_distance"], rel=2e-3)
    assert ours["inception_score"].generated.value == pytest.approx(theirs["inception_score_mean"], rel=1e-4)
    assert list(ours) == ["fid", "sfid", "inception_score", "inception_precision", "inception_recall"]
    for figure in ours.values():
        assert figure.generated.low <= figure.generated.value <= figure.generated.high
        assert figure.n == 20
    assert ours["fid"].note.startswith("biased upward at n = 20, with singular covariances of 2048 features")
    assert ours["sfid"].dimensions == 2023


def test_the_score_is_torch_fidelitys_and_its_interval_holds_it(observed: dict[str, np.ndarray]) -> None:
    from torch_fidelity.metric_isc import isc_features_to_metric

    theirs = isc_features_to_metric(torch.from_numpy(observed["logits"]))["inception_score_mean"]
    estimate = estimate_score(observed["logits"], num_replicates=20)
    assert estimate.value == theirs > 1
    assert 1 <= estimate.low < estimate.value < estimate.high
    # a classifier that is sure of a class for each picture of a split scores their number
    sure = np.zeros((100, 1008), np.float32)
    sure[np.arange(100), np.arange(100)] = 100
    assert inception_score(sure) == pytest.approx(10)
    assert inception_score(np.zeros((100, 1008), np.float32)) == pytest.approx(1)
    with pytest.raises(DataError, match="needs 10 or more pictures, there are 9"):
        inception_score(sure[:9])


def test_precision_and_recall_are_torch_fidelitys() -> None:
    from torch_fidelity.metric_prc import prc_features_to_metric

    rng = np.random.default_rng(0)
    generated, real = (rng.normal(shift, 1, (60, 6)).astype(np.float32) for shift in (0, 0.8))
    theirs = prc_features_to_metric(torch.from_numpy(generated), torch.from_numpy(real), verbose=False)
    ours = measure_coverage(generated, real)
    assert (ours.precision, ours.recall) == pytest.approx((theirs["precision"], theirs["recall"]), abs=1e-6)
    assert 0 < ours.precision < 1
    assert 0 < ours.recall < 1


def test_a_wrong_file_is_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"begins with \w{8}, expected 6726825d"):
        InceptionV3(weights)
    with pytest.raises(ConfigError, match="--inception-weights: there is no file"):
        open_networks(str(tmp_path / "nowhere.pth"), "none")


def test_a_pickle_that_runs_code_is_not_run(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return (tmp_path.joinpath("ran").touch, ())

    path = tmp_path / "code.pth"
    torch.save({"fc.bias": Code()}, path)
    with pytest.raises(CheckpointError, match="holds more than weights, or is cut short: it was not loaded"):
        InceptionV3(path, sha256_prefix="")
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_no_floating_point_are_refused(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "integers.pth"
    tensors = torch.load(weights, weights_only=True)
    assert any(name.endswith("num_batches_tracked") for name in tensors)  # whole numbers that are no weights
    torch.save(tensors | {"fc.weight": tensors["fc.weight"].to(torch.int8)}, path)
    with pytest.raises(CheckpointError, match=r"holds 'fc\.weight' as int8, expected floating point"):
        InceptionV3(path, sha256_prefix="")
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ConfigError, match=r"--inception-weights: .* is a Git LFS pointer, not the weights"):
        InceptionV3(path)


def test_weights_are_found_where_torch_hub_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert find_inception_weights() is None
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for name in reversed(INCEPTION_FILES):
        (folder / name).write_bytes(b"cut short")
        assert find_inception_weights() == folder / name
    with pytest.raises(ConfigError, match="expected 6726825d"):
        open_networks(None, "none")
    assert open_networks("none", "none") == ()


def test_a_package_that_cannot_be_imported_is_named(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(TargetError, match="torch-fidelity") as caught:
        InceptionV3(weights, sha256_prefix="")
    assert caught.value.hint == "pip install 'kind-diffusion[fid]'"
