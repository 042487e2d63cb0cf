"""What every source of photos is: classes, the label of each photo, and photos that are read one after the other."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kind_core.class_ids import choose_classes, parse_class_names
from kind_core.classes import ClassInfo
from kind_core.errors import ClassNameError, DataError
from kind_train.data.captions.beside import require_captions
from kind_train.data.decoding import UnreadableImage, decode_photo

_MAX_CLASSES = 1_000_000
# Names that data sets give to their parts, which are no classes.
_TRAIN = {"train", "training", "train_set", "trainset"}
_HELD_OUT = ("val", "valid", "validation", "dev", "eval", "test", "testing", "val_set", "test_set")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A photo that is not decoded yet: how an error calls it, its label, its file or its encoded bytes.

    `problem` says why it cannot be read, where that is known already.
    """

    name: str
    label: int
    source: Path | bytes
    problem: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Photos at `path`: `classes` by label, `labels` of all in order, and `entries()`, a new pass over them.

    `captions` are those of all in order too, where they were asked for: None for a photo without.
    `notes` are lines for the data's owner: what is left out, and why. `absent` says what a class without photos holds.
    """

    path: str
    classes: tuple[ClassInfo, ...]
    labels: Sequence[int]
    entries: Callable[[], Iterator[Entry]]
    captions: Sequence[str | None] = ()
    notes: tuple[str, ...] = ()
    absent: Mapping[int, str] = field(default_factory=dict)

    def choose(self, classes: Sequence[str] | Sequence[ClassInfo] = ()) -> list[int]:
        """The labels of the asked classes, in their order; all labels where none is asked for.

        Texts are read as typed; the classes of a model or of another set are found by their ids alone.
        """
        if not classes:
            return list(range(len(self.classes)))
        try:
            return choose_classes(classes, self.classes)
        except ClassNameError as error:
            # the hint of kind_core is about checkpoints
            is_typed = isinstance(classes[0], str)
            held = ", ".join(info.name if is_typed else f"{info.name} ({info.id})" for info in self.classes)
            raise ClassNameError(error.message, f"{self.path} holds {held}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """An image that could not be read, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Photo:
    """A decoded photo, pixels uint8 (3, size, size), its position among the kept classes, its caption if asked for."""

    name: str
    label: int
    pixels: np.ndarray
    caption: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """What is asked for of a source: the photos of its labels `kept`, which are numbered anew in this order."""

    source: Source
    kept: Sequence[int]

    def __len__(self) -> int:
        """As many as there are; some may be unreadable."""
        return sum(map(set(self.kept).__contains__, self.source.labels))

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """By the new labels."""
        return tuple(self.source.classes[label] for label in self.kept)

    def read(self, size: int, on_skip: Callable[[Skipped], None], *, strict: bool = False) -> Iterator[Photo]:
        """The photos one after the other, cropped to the centre square and resized to `size`.

        An unreadable image is told to `on_skip`; `strict` raises DataError instead.
        """
        position = {label: i for i, label in enumerate(self.kept)}
        for number, entry in enumerate(self.source.entries()):
            if entry.label not in position:
                continue
            try:
                if entry.problem:
                    raise UnreadableImage(entry.problem)
                pixels = decode_photo(entry.source, size)
            except UnreadableImage as error:
                skipped = Skipped(name=entry.name, reason=str(error))
                if strict:
                    raise DataError(f"unreadable image {skipped}", "remove it, or leave out --strict") from error
                on_skip(skipped)
                continue
            caption = self.source.captions[number] if self.source.captions else None
            yield Photo(name=entry.name, label=position[entry.label], pixels=pixels, caption=caption or "")

    def captions(self) -> list[str]:
        """The captions of the photos; raises DataError where one has none. No photo is decoded."""
        chosen = set(self.kept)
        captions = [self.source.captions[number] for number, label in enumerate(self.source.labels) if label in chosen]
        if not all(captions):
            names = [entry.name for entry in self.source.entries() if entry.label in chosen]
            require_captions(captions, names, self.source.path)
        return [caption or "" for caption in captions]

    def require_classes(self, labels: Iterable[int]) -> None:
        """Raise DataError where no photo, or none of some class, is among those read, of these new `labels`."""
        found = set(labels)
        for position, label in enumerate(self.kept):
            if position not in found:
                name, reason = self.source.classes[label].name, self.source.absent.get(label)
                held = f"{self.source.path} holds no readable image of class {name!r}"
                message = held + (f": {reason}" if reason else "")
                raise DataError(message, "add images or leave the class out with --classes")


def tell_skipped(skipped: Sequence[Skipped], tell: Callable[[str], None]) -> None:
    """Name every image that could not be read, then count them by reason."""
    for one in skipped:
        tell(f"skipped unreadable image {one}")
    if skipped:
        # what stands in brackets is of one image alone: the bytes that are missing
        reasons = Counter(re.sub(r" \(.*\)", "", one.reason) for one in skipped)
        counts = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
        tell(f"{len(skipped)} unreadable images skipped: {counts}")


def describe_unasked(
    path: str, held: Sequence[ClassInfo], labels: Iterable[int], asked: Sequence[str] | Sequence[ClassInfo]
) -> str | None:
    """A line about photos of classes that a model, or the set that it is trained on, does not have; None without any.

    Who types classes knows that the others are left out.
    """
    if not asked or isinstance(asked[0], str):
        return None
    ids = {info.id for info in asked if isinstance(info, ClassInfo)}
    counts = Counter(label for label in labels if held[label].id not in ids)
    if not counts:
        return None
    some = ", ".join(repr(held[label].name) for label in sorted(counts)[:3]) + (", ..." if len(counts) > 3 else "")
    return f"left out in {path}: {counts.total()} photos of classes that are not asked for: {some}"


def make_classes(path: str, names: Sequence[str]) -> tuple[ClassInfo, ...]:
    """The classes that the data set at `path` calls by `names`, in the order of their labels.

    A name that several labels have is told apart by the label: ImageNet has two cranes.
    """
    counts = Counter(names)
    distinct = [name if counts[name] == 1 else f"{name} {label}" for label, name in enumerate(names)]
    try:
        return parse_class_names(distinct)
    except ClassNameError as error:
        raise ClassNameError(f"{path}: {error.message}", error.hint) from error


def check_label(label: object, num_classes: int, place: str) -> int:
    """`label` where it is that of a class; raises DataError, naming the `place` of the photo."""
    if label is None:
        raise DataError(f"{place} has no label", "give every photo a label, or leave it out of the data")
    if not isinstance(label, int) or not 0 <= label < num_classes:
        hint = "-1 is how test splits without labels are published: give a split with labels" if label == -1 else ""
        raise DataError(f"{place} has label {label}, expected 0 to {num_classes - 1}", hint)
    return label


def count_classes(labels: Sequence[int], path: str) -> int:
    """The number of classes where nothing names them, at least 1: labels count from 0."""
    top = max(labels, default=0)
    if top >= _MAX_CLASSES:
        raise DataError(f"{path} has label {top}, expected numbers that count the classes from 0")
    return max(top, 0) + 1


def is_train_name(name: str) -> bool:
    """Whether this is what the part for training is called."""
    return name.casefold() in _TRAIN


def is_split_name(name: str) -> bool:
    """Whether this is what a part of a data set is called."""
    return is_train_name(name) or name.casefold() in _HELD_OUT


def refuse_splits(path: str, places: Mapping[str, str]) -> DataError:
    """The error for data given with all its parts at once; `places` says where each part lies, by its name."""
    train = next(place for name, place in places.items() if is_train_name(name))
    held_out = sorted(
        (_HELD_OUT.index(name.casefold()), place) for name, place in places.items() if not is_train_name(name)
    )
    hint = f"give --data {shlex.quote(train)}"
    if held_out:
        hint += f" --val-data {shlex.quote(held_out[0][1])}"
    return DataError(f"{path} holds {', '.join(places)}, which are parts of a data set, not classes", hint)
