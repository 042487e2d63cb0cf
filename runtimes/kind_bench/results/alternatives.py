"""What one would use instead of a bundle, as published: `data/alternatives.toml`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from kind_bench.data_files import read_table


@dataclass(frozen=True, kw_only=True, slots=True)
class Alternative:
    """A published row. `draws` says what its pictures are, because that is not what a bundle draws.

    Ranges are the least and the most that its makers print; None is what they do not.
    """

    name: str
    draws: str
    where: str
    source: str
    download_bytes: int
    picture_ms: tuple[float, float]
    load_ms: float | None
    peak_memory_bytes: tuple[float, float] | None


@cache
def list_alternatives() -> tuple[Alternative, ...]:
    """Every row of the table."""
    return tuple(map(_parse, read_table("alternatives")["rows"]))


def _parse(row: Any) -> Alternative:
    """A row as the file writes it; MB are of 10^6 bytes."""
    memory = row.get("peak_memory_mb")
    return Alternative(
        name=row["name"],
        draws=row["draws"],
        where=row["where"],
        source=row["source"],
        download_bytes=round(row["download_mb"] * 1e6),
        picture_ms=(row["picture_ms"]["low"], row["picture_ms"]["high"]),
        load_ms=row.get("load_ms"),
        peak_memory_bytes=(memory["low"] * 1e6, memory["high"] * 1e6) if memory else None,
    )
