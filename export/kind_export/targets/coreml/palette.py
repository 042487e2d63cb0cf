"""Palettes of 16-bit weights: one-dimensional k-means over the histogram of all 65536 bit patterns."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
_MAX_ITERATIONS = 300
_NUM_CELLS = 256
_PATTERNS = np.arange(1 << 16, dtype=np.uint16).view(np.float16)


def fit_palette(weights: Array, num_bits: int) -> tuple[Array, Array]:
    """(palette (2 ** num_bits,) fp16 in rising order, indices (weights.size,) uint8) of fp16 weights.

    The same weights give the same palette: it starts from the best one of a coarse histogram, not from random points.
    """
    assert weights.dtype == np.float16, weights.dtype
    patterns = np.ascontiguousarray(weights).reshape(-1).view(np.uint16)
    counts = np.bincount(patterns, minlength=1 << 16)
    used = np.flatnonzero(counts)
    used = used[np.argsort(_PATTERNS[used], kind="stable")]
    values = _PATTERNS[used].astype(np.float64)
    centres = _refine(values, counts[used], _start(values, counts[used], 1 << num_bits))
    palette = centres.astype(np.float16)
    codes = np.zeros(1 << 16, np.uint8)
    codes[used] = np.searchsorted(_find_borders(palette.astype(np.float64)), values)
    return palette, codes[patterns]


def _start(values: Array, counts: Array, size: int) -> Array:
    """`size` centres that are the best for the sums of neighbouring values."""
    if len(values) <= size:
        return np.pad(values, (0, size - len(values)), mode="edge")
    mass, moment, square = _sum_cells(values, counts)
    size_here = min(size, len(mass) - 1)
    stops = _cut(_cost(mass, moment, square), size_here)
    centres = np.diff(moment[stops]) / np.diff(mass[stops])
    return np.pad(centres, (0, size - size_here), mode="edge")


def _sum_cells(values: Array, counts: Array) -> tuple[Array, Array, Array]:
    """Running sums, from 0, of count, value and squared value over cells that are even in range and count at once."""
    rank = (np.cumsum(counts) - counts / 2) / counts.sum()
    span = (values - values[0]) / (values[-1] - values[0])
    cells = np.minimum(((rank + span) / 2 * _NUM_CELLS).astype(np.int64), _NUM_CELLS - 1)
    held = np.bincount(cells, counts) > 0
    sums = (np.bincount(cells, counts * values**power)[held] for power in range(3))
    mass, moment, square = (np.concatenate([[0.0], np.cumsum(one)]) for one in sums)
    return mass, moment, square


def _cost(mass: Array, moment: Array, square: Array) -> Array:
    """[i, j]: the squared error of cells i to j - 1 around their mean; infinite where there are none."""
    count, first, second = (one[None, :] - one[:, None] for one in (mass, moment, square))
    error: Array = np.where(count > 0, second - first**2 / np.where(count > 0, count, 1), np.inf)
    return error


def _cut(cost: Array, size: int) -> Array:
    """The borders, first and last included, of the `size` groups of cells with the least error in all."""
    best, choices = cost[0], []
    for _ in range(size - 1):
        totals = best[:, None] + cost
        choices.append(totals.argmin(axis=0))
        best = totals.min(axis=0)
    stops = [len(best) - 1]
    for choice in reversed(choices):
        stops.append(int(choice[stops[-1]]))
    return np.array([0, *reversed(stops)])


def _refine(values: Array, counts: Array, centres: Array) -> Array:
    """Lloyd's rounds until no value changes its centre; a centre that nothing is near stays."""
    mass = np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)])
    moment = np.concatenate([[0.0], np.cumsum(counts * values)])
    before: Array | None = None
    for _ in range(_MAX_ITERATIONS):
        ends = np.searchsorted(values, _find_borders(centres), side="right")
        if before is not None and np.array_equal(ends, before):
            break
        before = ends
        stops = np.concatenate([[0], ends, [len(values)]])
        weight, total = np.diff(mass[stops]), np.diff(moment[stops])
        centres = np.where(weight > 0, total / np.maximum(weight, 1), centres)
    return centres


def _find_borders(centres: Array) -> Array:
    return (centres[1:] + centres[:-1]) / 2
