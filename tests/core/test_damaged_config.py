"""Every value of config.json replaced by another: refused in one line, or a checkpoint that loads."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kind_core.checkpoint import load_checkpoint
from kind_core.errors import CheckpointError, KindError

VALUES = (
    None, True, -1, 0, 7, 10**9, 10**18, 1e30, math.nan, math.inf, 0.5, "x", "", [], [1, 2], {}, {"a": 1}, [[[]]],
)  # fmt: skip


def places(data: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value in nested JSON."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*before, key)
        yield from places(value, (*before, key))


def with_value(data: Any, place: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(data)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


def test_no_changed_value_ends_in_a_traceback_or_takes_all_memory(checkpoint_path: Path) -> None:
    file = checkpoint_path / "config.json"
    data = json.loads(file.read_text())
    messages: list[str] = []
    for place in places(data):
        for value in VALUES:
            file.write_text(json.dumps(with_value(data, place, value)))
            try:
                assert load_checkpoint(checkpoint_path).model is not None
            except KindError as error:
                messages.append(error.message)
    assert len(messages) > 400
    assert not [message for message in messages if "\n" in message]


@pytest.mark.parametrize(
    ("name", "value"), [("hidden_size", 8192), ("depth", 1000), ("learngene_rank", 16_000), ("tailor_rank", 16_000)]
)
def test_sizes_are_held_to_the_files_before_they_are_allocated(checkpoint_path: Path, name: str, value: int) -> None:
    file = checkpoint_path / "config.json"
    data = json.loads(file.read_text())
    file.write_text(json.dumps(with_value(data, ("architecture", name), value)))
    with pytest.raises(CheckpointError, match="bytes, too few for the"):
        load_checkpoint(checkpoint_path)
