"""What any training set offers, photos or the latents of photos, and which of them are held out.

That is decided by each photo's own pixels, so that others may be added and it stays where it is: its hash gives a photo
a number from 0 to 1; those below the fraction are held out. Where that leaves a class nothing to train on, or holds out
none though a photo of it is due, one photo is moved to the other side. A run remembers these.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from kind_core.classes import ClassInfo
from kind_core.errors import CheckpointError, ConfigError, DataError
from kind_core.files.json_files import read_object
from kind_train.config import HELD_OUT_NAME
from kind_train.data.captions.store import Captions

_VERSION = 1
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


_Set = TypeVar("_Set", bound=TrainingSet)


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitRecord:
    """How a run held out: `moved` are the hashes of photos that lie on another side than their number says, and
    whether that is held out; `photos` were there."""

    fraction: float
    seed: int
    photos: int
    moved: Mapping[str, bool] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """As it lies in a run's folder."""
        return {
            "format_version": _VERSION,
            "val_fraction": self.fraction,
            "seed": self.seed,
            "photos": self.photos,
            "moved": dict(self.moved),
        }


def split_photos(photos: _Set, fraction: float, seed: int, record: SplitRecord | None = None) -> tuple[_Set, _Set]:
    """Split off a held-out share of each class: (train, held out). With a `record`, nothing of then changes sides.

    Raises DataError where no photo can be held out; a fraction of 0 holds out none, and so does a record none of whose
    held-out photos is left.
    """
    train, held_out, _ = split_and_record(photos, fraction, seed, record)
    return train, held_out


def split_and_record(
    photos: _Set, fraction: float, seed: int, record: SplitRecord | None = None
) -> tuple[_Set, _Set, SplitRecord]:
    """`split_photos`, and what a run has to remember of it."""
    places = torch.arange(len(photos))
    if fraction == 0:
        made = SplitRecord(fraction=fraction, seed=seed, photos=len(photos))
        return photos, photos.select(places[:0]), made
    digests = photos.digests()
    split = _Split(digests, photos.labels.tolist(), fraction, seed, record)
    split.settle(is_new=record is None)
    is_held = torch.tensor([split.is_held[digest] for digest in digests], dtype=torch.bool)
    made = SplitRecord(fraction=fraction, seed=seed, photos=len(photos), moved=split.moved)
    return photos.select(places[~is_held]), photos.select(places[is_held]), made


def describe_overlap(train: TrainingSet, held_out: TrainingSet) -> str | None:
    """A line where photos that were given to be held out are among those trained on, by their pixels; None else."""
    known = set(train.digests())
    shared = [index for index, digest in enumerate(held_out.digests()) if digest in known]
    if not shared:
        return None
    return (
        f"{len(shared)} of the {len(held_out)} photos of --val-data are in --data too, such as "
        f"{held_out.describe(shared[0])}: figures on them look better than the model is; take them out of one of both"
    )


class _Split:
    """The sides of photos by their hashes; a photo that is there twice, or in two classes, has one side."""

    def __init__(
        self, digests: Sequence[str], labels: Sequence[int], fraction: float, seed: int, record: SplitRecord | None
    ) -> None:
        self.moved = {} if record is None else dict(record.moved)
        hashes = {digest: hashlib.sha256(f"{seed}:{digest}".encode()).digest() for digest in digests}
        self.numbers = {digest: int.from_bytes(mixed[:8], "big") / 2**64 for digest, mixed in hashes.items()}
        self.is_held = {digest: number < fraction for digest, number in self.numbers.items()}
        self.is_held |= {digest: held for digest, held in self.moved.items() if digest in self.is_held}
        self.fraction = fraction
        self.classes: dict[int, dict[str, None]] = {}
        for digest, label in zip(digests, labels, strict=True):
            self.classes.setdefault(label, {})[digest] = None
        self.num_classes = Counter(digest for held in self.classes.values() for digest in held)

    def settle(self, *, is_new: bool) -> None:
        """See that every class has a photo to train on, and some of those that are due are held out.

        Of a run that goes on (not `is_new`) none is held out that it may have trained on.
        """
        for photos in self.classes.values():
            if all(self.is_held[digest] for digest in photos):
                self._move(max(photos, key=self.numbers.__getitem__), is_held=False)
        if not is_new:
            return
        for photos in self.classes.values():
            if round(len(photos) * self.fraction) >= 1 and not any(self.is_held[digest] for digest in photos):
                self._hold_out_one([photos])
        if not any(self.is_held.values()) and not self._hold_out_one(list(self.classes.values())):
            raise DataError(
                "no photo can be held out: no class has two different photos of its own",
                "add photos, give --val-data, or hold out none: --val-fraction 0",
            )

    def _hold_out_one(self, classes: Sequence[Mapping[str, None]]) -> bool:
        """Hold out the photo with the lowest number that leaves its class another one to train on, if there is any."""
        free: list[str] = []
        for photos in classes:
            trained = [digest for digest in photos if not self.is_held[digest]]
            free += [digest for digest in trained if len(trained) > 1 and self.num_classes[digest] == 1]
        if free:
            self._move(min(free, key=self.numbers.__getitem__), is_held=True)
        return bool(free)

    def _move(self, digest: str, *, is_held: bool) -> None:
        self.is_held[digest] = self.moved[digest] = is_held


def read_split(folder: Path, fraction: float) -> SplitRecord | None:
    """How the run in `folder` held out; None where it does not tell, as runs of earlier versions.

    Raises ConfigError where another share is asked for now.
    """
    file = folder / HELD_OUT_NAME
    if not file.exists():
        return None
    data = read_object(file, CheckpointError, "start the run over with --force")
    moved, numbers = data.get("moved"), [data.get(name) for name in ("val_fraction", "seed", "photos")]
    is_right = isinstance(moved, dict) and all(isinstance(held, bool) for held in moved.values())
    is_right &= all(isinstance(one, int | float) and not isinstance(one, bool) for one in numbers)
    if moved is None or not is_right or data.get("format_version") != _VERSION:
        raise CheckpointError(f"{file} is broken", "start the run over with --force")
    if data["val_fraction"] != fraction:
        raise ConfigError(
            f"the run in {folder} held out {data['val_fraction']:g} of its photos, not {fraction:g}: "
            "it was trained on some that would be held out now",
            f"resume it with --val-fraction {data['val_fraction']:g}, or train into another --output",
        )
    return SplitRecord(fraction=fraction, seed=data["seed"], photos=data["photos"], moved=moved)
