"""What any training set offers: photos, or the latents of photos."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self

from torch import Tensor

from kind_core.classes import ClassInfo
from kind_train.data.captions.store import Captions

# Standard normals of the shape of the model's inputs, for data that is a distribution.
Draw = Callable[[], Tensor]


class TrainingSet(Protocol):
    """What a run is trained on: photos, or the latents of photos, that stay on the host until a step takes some."""

    @property
    def labels(self) -> Tensor:
        """Long (n,), positions in `classes`."""

    @property
    def classes(self) -> tuple[ClassInfo, ...]: ...

    @property
    def captions(self) -> Captions | None:
        """What the photos show, where a model reads it."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, size, size) of what the model takes."""

    def __len__(self) -> int: ...

    def read(self, indices: Tensor, flipped: Tensor | None = None) -> Tensor:
        """What is stored of the photos at `indices`, those in `flipped` (bool, like indices) mirrored."""

    def to_input(self, stored: Tensor, draw: Draw) -> Tensor:
        """What `read` returned, by then on any device, as the model takes it: float32 (batch, channels, size, size)."""

    def select(self, indices: Tensor) -> Self:
        """The photos at `indices` alone."""

    def describe(self, index: int) -> str:
        """What a line for the data's owner calls a photo."""

    def digests(self) -> list[str]:
        """sha256 of the pixels of each photo: what a photo is known by, whatever its file is called."""
