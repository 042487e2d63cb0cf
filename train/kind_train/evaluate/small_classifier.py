"""A small convolutional classifier of a data set's own classes at a model's own size: a judge that no model was trained
against, and that knows classes ImageNet lacks. `kind-train classifier` trains it in minutes, on held-out photos.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from kind_core.classes import ClassInfo, read_class
from kind_core.config.checks import require_positive
from kind_core.errors import CheckpointError, ClassNameError, ConfigError
from kind_core.files.hashing import hash_file
from kind_core.files.json_files import parse_json
from kind_core.files.staging import file_kind
from kind_core.files.weight_files import find_misfit
from kind_train.config import MAX_SIDE
from kind_train.data.photo_set import PhotoSet
from kind_train.display import Update, ignore_progress
from kind_train.evaluate.features import Classification
from kind_train.evaluate.networks import CLASSIFIER_HINT

NUM_FEATURES = 128
_WIDTHS = (32, 64, 128, NUM_FEATURES)
_BATCH = 64
_SHIFT = 0.08  # photos are moved by at most this share of their side while training
_METADATA = "kind_classifier"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierInfo:
    """What a classifier was trained on, and `accuracy`: its share of right answers on `num_tested` other photos."""

    size: int
    classes: tuple[ClassInfo, ...]
    accuracy: float
    num_trained: int
    num_tested: int

    def require_size(self, width: int, height: int | None = None) -> None:
        """Raise ConfigError for pictures of another size."""
        height = width if height is None else height
        if (width, height) != (self.size, self.size):
            raise ConfigError(
                f"the pictures are {width} x {height}, the classifier's are {self.size} x {self.size}",
                f"train one with kind-train classifier --size {height}",
            )


class SmallClassifier:
    """Sees photos as `EfficientNetLite` does, with 128 features and a logit for each of its own classes."""

    name = "in-domain classifier"

    def __init__(self, path: Path, *, device: str = "cpu") -> None:
        self.info = read_classifier(path)
        self.sha256 = hash_file(path)
        self.device = device
        self._network = _Network(len(self.info.classes))
        try:
            load_model(self._network, path)
        except (RuntimeError, OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{path} is no classifier: {' '.join(str(error).split())}", CLASSIFIER_HINT
            ) from error
        self._network.eval().requires_grad_(False).to(device)
        self._index = {info.id: index for index, info in enumerate(self.info.classes)}

    @property
    def stages(self) -> list[nn.Module]:
        """Its convolutions with norm and activation, in their order: pixels in [-1, 1] go into the first. Frozen."""
        layers = list(self._network.body)
        return [nn.Sequential(*layers[first : first + 3]) for first in range(0, len(layers), 3)]

    def index(self, info: ClassInfo) -> int | None:
        """The output for a class, None for one that it was not trained on."""
        return self._index.get(info.id)

    def classify(self, images: NDArray[np.uint8]) -> Classification:
        """Run uint8 RGB images (N, size, size, 3); raises ConfigError for images of another size."""
        self.info.require_size(images.shape[2], images.shape[1])
        return _classify(self._network, images, self.device)


class _Network(nn.Module):
    """Four 3x3 convolutions, the later three with stride 2, and the mean over what is left of the picture."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in zip((3, *_WIDTHS), _WIDTHS, strict=False):
            stride = 1 if before == 3 else 2
            layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(NUM_FEATURES, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels in [-1, 1], (batch, 3, size, size) -> features (batch, 128) and logits (batch, classes)."""
        features = self.body(images).mean((2, 3))
        return features, self.head(features)


def train_classifier(
    train: PhotoSet,
    test: PhotoSet,
    *,
    images: int = 60_000,
    learning_rate: float = 3e-3,
    flip: bool = True,
    seed: int = 0,
    progress: Update = ignore_progress,
) -> tuple[nn.Module, ClassifierInfo]:
    """A network trained on `images` photos of `train`, each moved a little, and how often it is right on `test`."""
    require_positive("images", images)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = _Network(len(train.classes)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    steps = -(-images // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    for step in range(steps):
        chosen = torch.randint(len(train), (_BATCH,), generator=generator)
        mirrored = torch.rand(_BATCH, generator=generator) < 0.5 if flip else None
        photos = move_photos(train.to_input(train.read(chosen, mirrored), torch.Tensor), generator)
        loss = nn.functional.cross_entropy(network(photos)[1], train.labels[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        progress((step + 1) * _BATCH, steps * _BATCH, f"loss {loss.item():.3f}" if step % 20 == 0 else "")
    network.eval()
    answers = _classify(network, test.images.permute(0, 2, 3, 1).numpy(), "cpu").logits.argmax(1)
    accuracy = float((answers == test.labels.numpy()).mean())
    return network, ClassifierInfo(
        size=train.input_shape[1],
        classes=train.classes,
        accuracy=accuracy,
        num_trained=len(train),
        num_tested=len(test),
    )


def save_classifier(path: Path, network: nn.Module, info: ClassifierInfo) -> None:
    """One safetensors file; what the classifier is stands in its metadata."""
    save_model(network, str(path), {_METADATA: json.dumps(asdict(info))})


def read_classifier(path: Path) -> ClassifierInfo:
    """What `save_classifier` wrote about a classifier; raises CheckpointError for any other file."""
    try:
        misfit = find_misfit(path)
        if misfit is not None:
            raise CheckpointError(f"{path} {misfit}", CLASSIFIER_HINT)
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_METADATA)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is no classifier: {error}", CLASSIFIER_HINT) from error
    if text is None:
        raise CheckpointError(f"{path} is no classifier: its metadata says nothing of one", CLASSIFIER_HINT)
    try:
        data = parse_json(text)
        classes = tuple(map(read_class, data.pop("classes")))
        info = ClassifierInfo(classes=classes, **data)
        _require_sane(info)
        return info
    except (ValueError, KeyError, TypeError, AttributeError, ClassNameError) as error:
        raise CheckpointError(
            f"{path} is no classifier: its metadata does not fit: {error}", CLASSIFIER_HINT
        ) from error


def _require_sane(info: ClassifierInfo) -> None:
    """Raise ValueError for what no training writes."""
    if not info.classes:
        raise ValueError("it has no classes")
    for name, most in (("size", MAX_SIDE), ("num_trained", 2**63), ("num_tested", 2**63)):
        value = getattr(info, name)
        if type(value) is not int or not 0 <= value <= most:
            raise ValueError(f"{name} is {value!r:.60}, expected a whole number up to {most}")
    if not isinstance(info.accuracy, int | float) or not 0 <= info.accuracy <= 1:
        raise ValueError(f"accuracy is {info.accuracy!r:.60}, expected 0 to 1")


CLASSIFIER = file_kind("a classifier", read_classifier)


def move_photos(photos: Tensor, generator: torch.Generator) -> Tensor:
    """Every photo moved by up to `_SHIFT` of its side either way, its border repeated."""
    size = photos.shape[-1]
    most = max(1, round(size * _SHIFT))
    padded = nn.functional.pad(photos, (most,) * 4, mode="replicate")
    offsets = torch.randint(2 * most + 1, (2, len(photos)), generator=generator)
    rows, columns = (one[:, None] + torch.arange(size) for one in offsets)
    # indices that part a slice put it last: (batch, size, size, channels)
    moved: Tensor = padded[torch.arange(len(photos))[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def _classify(network: nn.Module, images: NDArray[np.uint8], device: str) -> Classification:
    parts: list[tuple[NDArray[np.float32], ...]] = []
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            pixels = torch.from_numpy(images[start : start + _BATCH].copy()).to(device).permute(0, 3, 1, 2)
            parts.append(tuple(one.cpu().numpy() for one in network(pixels.float() / 127.5 - 1)))
    features, logits = (np.concatenate(one) for one in zip(*parts, strict=True))
    return Classification(features=features, logits=logits)
