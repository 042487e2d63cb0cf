"""Names that data sets give to their parts, which are no classes: train, val, test."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from kind_core.errors import DataError

_TRAIN = {"train", "training", "train_set", "trainset"}
_HELD_OUT = ("val", "valid", "validation", "dev", "eval", "test", "testing", "val_set", "test_set")


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
