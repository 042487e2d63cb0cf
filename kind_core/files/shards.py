"""Folders that a long job writes one after the other, 00000, 00001 and so on, each there whole or not at all."""

from __future__ import annotations

from pathlib import Path

from kind_core.errors import KindError
from kind_core.files.litter import is_hidden


def shard_name(number: int) -> str:
    """The name of the shard with this number, from 0."""
    return f"{number:05d}"


def list_numbered(place: Path, error: type[KindError], hint: str) -> list[Path]:
    """The shards in `place` in their order; raises `error` in one line, with `hint`, where one is missing."""
    try:
        names = sorted(item.name for item in place.iterdir() if not is_hidden(item.name))
    except OSError as reason:
        raise error(f"{place} cannot be read: {reason.strerror or reason}", hint) from reason
    expected = [shard_name(number) for number in range(len(names))]
    other = next((e for name, e in zip(names, expected, strict=True) if name != e), None)
    if other is not None:
        raise error(f"{place} lacks {other}, or holds what is no shard", hint)
    return [place / name for name in names]
