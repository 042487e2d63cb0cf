"""Photos for training, decoded once into one uint8 tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kind_core.classes import ClassInfo
from kind_core.config.checks import require_positive
from kind_train.config import MAX_SIDE
from kind_train.data.captions.store import Captions, WordStore
from kind_train.data.photo_source import Skipped, describe_unasked, tell_skipped
from kind_train.data.sources import choose_photos
from kind_train.data.training_set import Draw as Draw
from kind_train.data.training_set import TrainingSet as TrainingSet
from kind_train.data.training_set import split_photos as split_photos

Progress = Callable[[int, int], None]
# A line about the data that its owner should see.
Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class PhotoSet:
    """Decoded photos: `images` (n, 3, size, size) uint8, `labels` (n,) long into `classes`.

    `skipped` holds the images that could not be read, `names` what errors call those that could, where that is known;
    `captions` what they show, where that was asked for.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[ClassInfo, ...]
    skipped: tuple[Skipped, ...] = field(default=())
    names: tuple[str, ...] = field(default=())
    captions: Captions | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(3, size, size)."""
        return 3, self.images.shape[2], self.images.shape[3]

    def read(self, indices: Tensor, flipped: Tensor | None = None) -> Tensor:
        """uint8 (batch, 3, size, size)."""
        images = self.images[indices]
        return images if flipped is None else torch.where(flipped[:, None, None, None], images.flip(-1), images)

    def to_input(self, stored: Tensor, draw: Draw) -> Tensor:
        """Pixels in [-1, 1]."""
        return stored.float() / 127.5 - 1

    def to_unit(self, indices: Tensor, flipped: Tensor | None = None) -> Tensor:
        """The photos at `indices`, mirrored where `flipped`, as float32 in [-1, 1]."""
        return self.read(indices, flipped).float() / 127.5 - 1

    def select(self, indices: Tensor) -> PhotoSet:
        """The photos at `indices`."""
        names = tuple(self.names[index] for index in indices.tolist()) if self.names else ()
        captions = self.captions and self.captions.select(indices)
        return replace(
            self, images=self.images[indices], labels=self.labels[indices], skipped=(), names=names, captions=captions
        )

    def describe(self, index: int) -> str:
        """The name of a photo, or its number and class."""
        return self.names[index] if self.names else describe_photo(index, self.classes[int(self.labels[index])])

    def digests(self) -> list[str]:
        """sha256 of the pixels of each photo."""
        return [hash_pixels(image) for image in self.images.numpy()]


def describe_photo(index: int, info: ClassInfo) -> str:
    """What a photo is called whose name nobody keeps."""
    return f"photo {index + 1}, of class {info.name!r}"


def ignore(line: str) -> None:
    """Tells nobody."""


def hash_pixels(pixels: np.ndarray) -> str:
    """sha256 of a photo, uint8 (3, size, size)."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def load_photos(
    path: str | Path,
    size: int,
    *,
    classes: Sequence[str] | Sequence[ClassInfo] = (),
    strict: bool = False,
    progress: Progress | None = None,
    tell: Tell = ignore,
    output: Path | None = None,
    store: WordStore | None = None,
) -> PhotoSet:
    """Read all photos at `path`, whatever `open_source` takes, into memory.

    `classes` keeps some classes, in that order: see `Source.choose`. An unreadable image is named, skipped and counted;
    `strict` raises DataError instead. `tell` gets the lines that say so, and those about files that are left out.
    `output`, where the command writes, is left out of the data. With a `store` photos come with their captions, which
    have to be in it.
    """
    require_positive("size", size, MAX_SIDE)
    chosen = choose_photos(path, classes, tell, output, with_captions=store is not None)
    if store is not None:
        store.require(chosen.captions(), chosen.source.path)
    if (
        unasked := describe_unasked(chosen.source.path, chosen.source.classes, chosen.source.labels, classes)
    ) is not None:
        tell(unasked)
    total = len(chosen)
    images = np.empty((total, 3, size, size), np.uint8)
    labels: list[int] = []
    names: list[str] = []
    captions: list[str] = []
    skipped: list[Skipped] = []
    for photo in chosen.read(size, skipped.append, strict=strict):
        images[len(labels)] = photo.pixels
        labels.append(photo.label)
        names.append(photo.name)
        captions.append(photo.caption)
        if progress is not None:
            progress(len(labels) + len(skipped), total)
    tell_skipped(skipped, tell)
    chosen.require_classes(labels)
    return PhotoSet(
        images=torch.from_numpy(images[: len(labels)]),
        labels=torch.tensor(labels),
        classes=chosen.classes,
        skipped=tuple(skipped),
        names=tuple(names),
        captions=None if store is None else Captions.of(captions, labels, len(chosen.kept), store),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class PhotoStream:
    """Photos that are decoded when they are asked for: `parts()` is a pass over them, (photos (n, size, size, 3) uint8,
    labels (n,) into `classes`), and holds one part at a time. `total` are to be read, fewer where some are unreadable.
    """

    classes: tuple[ClassInfo, ...]
    total: int
    parts: Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]


def stream_photos(
    path: str | Path,
    size: int,
    *,
    classes: Sequence[str] | Sequence[ClassInfo] = (),
    part_size: int = 64,
    tell: Tell = ignore,
) -> PhotoStream:
    """The photos at `path` part by part, each as `load_photos` would have it; see there."""
    chosen = choose_photos(path, classes, tell)

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        skipped: list[Skipped] = []
        found: set[int] = set()
        photos = chosen.read(size, skipped.append)
        while part := list(islice(photos, part_size)):
            found.update(one.label for one in part)
            yield np.stack([one.pixels.transpose(1, 2, 0) for one in part]), np.array([one.label for one in part])
        tell_skipped(skipped, tell)
        chosen.require_classes(found)

    return PhotoStream(classes=chosen.classes, total=len(chosen), parts=parts)
