"""What every source of photos is: classes, the label of each photo, and photos that are read one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kind_core.class_ids import choose_classes, parse_class_names
from kind_core.classes import ClassInfo
from kind_core.errors import ClassNameError, DataError

_MAX_CLASSES = 1_000_000


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
