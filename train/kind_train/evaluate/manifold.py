"""Precision and recall of generated features: how many lie among the real ones, and how much of the real they cover.

Kynkäänniemi et al., https://arxiv.org/abs/1904.06991. The features are EfficientNet-Lite0's or, as in ADM's evaluator,
Inception's, neither those of the paper: the numbers compare on one network, at equal n, and with the floor.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kind_core.errors import DataError

if TYPE_CHECKING:  # figures are asked for before torch is loaded
    from kind_train.data.photo_set import PhotoSet

NEIGHBOURS = 3
_CHUNK_ROWS = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifoldCoverage:
    """With the manifold of a set the union of balls around its rows that reach to their k-th nearest neighbour in it:

    precision: share of generated rows in the manifold of the real ones (fidelity)
    recall:    share of real rows in the manifold of the generated ones (variety)
    n:         rows of each set; the larger one is cut to the first rows of the smaller
    neighbours: k
    """

    precision: float
    recall: float
    n: int
    neighbours: int


def measure_coverage(
    generated: NDArray[Any], real: NDArray[Any], *, neighbours: int = NEIGHBOURS, n: int | None = None, seed: int = 0
) -> ManifoldCoverage:
    """Precision and recall of `generated` rows against `real` rows at equal n."""
    n = min(len(generated), len(real)) if n is None else n
    if n <= neighbours:
        raise DataError(
            f"precision and recall need more than {neighbours} rows of each, there are {n}", "raise --count"
        )
    chance = np.random.default_rng(seed)
    a, b = (rows[np.sort(chance.permutation(len(rows))[:n])].astype(np.float64) for rows in (generated, real))
    return ManifoldCoverage(
        precision=_share_within(a, b, neighbours), recall=_share_within(b, a, neighbours), n=n, neighbours=neighbours
    )


def require_sets(sets: Iterable[tuple[Path, PhotoSet]]) -> None:
    """Raise DataError where a class of photos at some path has no distance, or all of them no precision and recall."""
    for path, photos in sets:
        for info, count in zip(photos.classes, np.bincount(photos.labels, minlength=len(photos.classes)), strict=True):
            if count < 2:
                message = (
                    f"{path} holds {count} photo of class {info.name!r}, expected 2 or more: distances are of sets"
                )
                raise DataError(message, "add photos, or leave the class out with --classes")
        if len(photos) <= NEIGHBOURS:
            message = f"{path} holds {len(photos)} photos, expected more than {NEIGHBOURS} for precision and recall"
            raise DataError(message, "add photos")


def _share_within(rows: NDArray[np.float64], references: NDArray[np.float64], neighbours: int) -> float:
    """The share of `rows` in a ball around some reference."""
    radii = np.concatenate(
        # of the sorted distances of a reference to all, the first is its own zero
        [np.sort(_squares(part, references), axis=1)[:, neighbours] for part in _chunks(references)]
    )
    within = [(_squares(part, references) <= radii).any(axis=1) for part in _chunks(rows)]
    return float(np.concatenate(within).mean())


def _squares(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1) - 2 * a @ b.T
    return np.maximum(squares, 0.0, out=squares)


def _chunks(rows: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    return [rows[start : start + _CHUNK_ROWS] for start in range(0, len(rows), _CHUNK_ROWS)]
