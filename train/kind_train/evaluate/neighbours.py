"""How near images are to photos: the check that a model makes pictures rather than copies, and precision and recall.

Held-out photos give the measure of a copy: a good model's pictures lie as far from the training photos as they do.

Precision is how many generated features lie among the real ones, recall how much of the real they cover: Kynkäänniemi
et al., https://arxiv.org/abs/1904.06991. The features are EfficientNet-Lite0's or, as in ADM's evaluator, Inception's,
neither those of the paper: the numbers compare on one network, at equal n, and with the floor.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from kind_core.errors import DataError

if TYPE_CHECKING:  # figures are asked for before torch is loaded
    from kind_train.data.photo_set import PhotoSet

# Held-out photos nearer to a training photo than this quantile are rare; pictures that are so are suspects.
NEAR_QUANTILE = 0.01
# Photo collections hold a few duplicates; more than this share means that two sets are not disjoint.
MAX_SHARED = 0.01
# Distances below this share of the references' typical norm are rounding: one image in two batches.
_ROUNDING = 1e-5
_CHUNK_ROWS = 512
NEIGHBOURS = 3  # of precision and recall

Space = Literal["features", "pixels"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Nearest:
    """`distances` (N,) float64 of N rows to their nearest references, `indices` (N,) into these."""

    distances: NDArray[np.float64]
    indices: NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, slots=True)
class CopyCheck:
    """Distances to the nearest training photo, of generated pictures beside held-out photos.

    With D(x) = min over training photos t of |x - t|, Euclidean; in pixels, of all channels in [0, 1]:

    space:                    what the distance is taken in, `features` or `pixels`
    generated_mean:           mean of D over the generated pictures
    generated_standard_error: standard deviation of those D (1 / (n - 1)) / sqrt(n)
    held_out_mean:            mean of D over the held-out photos
    held_out_standard_error:  as above
    ratio:                    generated_mean / held_out_mean; well below 1 is a copier
    near_share:               share of generated D below the 1 % quantile of the held-out; 0.01 for photos
    num_identical:            generated pictures with D = 0 up to rounding
    num_generated, num_held_out, num_training: rows of each
    """

    space: Space
    generated_mean: float
    generated_standard_error: float
    held_out_mean: float
    held_out_standard_error: float
    ratio: float
    near_share: float
    num_identical: int
    num_generated: int
    num_held_out: int
    num_training: int


def find_nearest(rows: NDArray[Any], references: NDArray[Any], *, chunk_rows: int = _CHUNK_ROWS) -> Nearest:
    """The nearest reference of each row, Euclidean; arrays (N, ...) and (M, ...) of one row shape, flattened.

    uint8 is read as [0, 1]. At most `chunk_rows` rows of each are held as float64 at a time.
    """
    _check_pair(rows, references)
    distances = np.full(len(rows), np.inf)
    indices = np.zeros(len(rows), np.intp)
    for row_start in range(0, len(rows), chunk_rows):
        chunk = slice(row_start, row_start + chunk_rows)
        block = _to_float(rows[chunk])
        for start in range(0, len(references), chunk_rows):
            found, positions = _find_in_block(block, _to_float(references[start : start + chunk_rows]))
            nearer = found < distances[chunk]
            indices[chunk][nearer] = positions[nearer] + start
            distances[chunk][nearer] = found[nearer]
    return Nearest(distances=distances, indices=indices)


def check_copying(
    generated: NDArray[Any], held_out: NDArray[Any], training: NDArray[Any], *, space: Space = "features"
) -> CopyCheck:
    """Hold the generated pictures' nearest training photos against the held-out photos'.

    `space="features"`: the evaluator's float rows (n, d); `"pixels"`: uint8 images (n, H, W, 3) of one size.
    Raises DataError when held-out photos are among the training photos.
    """
    _check_space(space, generated, held_out, training)
    ours = find_nearest(generated, training).distances
    photos = find_nearest(held_out, training).distances
    _require_disjoint(photos, training)
    return CopyCheck(
        space=space,
        generated_mean=float(ours.mean()),
        generated_standard_error=_standard_error(ours),
        held_out_mean=float(photos.mean()),
        held_out_standard_error=_standard_error(photos),
        ratio=float(ours.mean() / photos.mean()),
        near_share=float(np.mean(ours < np.quantile(photos, NEAR_QUANTILE))),
        num_identical=_count_identical(ours, training),
        num_generated=len(generated),
        num_held_out=len(held_out),
        num_training=len(training),
    )


def require_disjoint(photos: NDArray[Any], others: NDArray[Any]) -> None:
    """Raise DataError when more than 1 % of `photos` are among `others`; rows as in `find_nearest`."""
    _require_disjoint(find_nearest(photos, others).distances, others)


def _require_disjoint(distances: NDArray[np.float64], references: NDArray[Any]) -> None:
    num_shared = _count_identical(distances, references)
    if num_shared > MAX_SHARED * len(distances):
        raise DataError(
            f"{num_shared} of {len(distances)} photos are also in the other set, expected disjoint sets",
            "give held-out photos that were not trained on, or split one set in two",
        )


def _count_identical(distances: NDArray[np.float64], references: NDArray[Any]) -> int:
    sample = _to_float(references[:: max(1, len(references) // _CHUNK_ROWS)])
    norm = np.sqrt(np.mean(np.sum(sample**2, axis=1)))
    return int(np.sum(distances <= _ROUNDING * norm))


def _find_in_block(rows: NDArray[np.float64], references: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(distance, position) of each row's nearest reference, (N, d) against (M, d)."""
    # |row|^2 is left out, being the same for every reference.
    squared = np.sum(references**2, axis=1) - 2 * rows @ references.T
    positions = np.argmin(squared, axis=1)
    # Taken anew: the expanded square loses the digits of small distances, and a copy must be at zero.
    return np.linalg.norm(rows - references[positions], axis=1), positions


def _to_float(rows: NDArray[Any]) -> NDArray[np.float64]:
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    return flat / 255 if rows.dtype == np.uint8 else flat


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _check_pair(rows: NDArray[Any], references: NDArray[Any]) -> None:
    if rows.shape[1:] != references.shape[1:] or rows.dtype != references.dtype or not len(references):
        raise ValueError(
            f"rows are {rows.dtype} {rows.shape}, references {references.dtype} {references.shape}, "
            "expected one row shape, one dtype and at least one reference"
        )


def _check_space(space: Space, generated: NDArray[Any], held_out: NDArray[Any], training: NDArray[Any]) -> None:
    for array in (generated, held_out, training):
        if (array.dtype == np.uint8) != (space == "pixels"):
            raise ValueError(f"{space} are {array.dtype}, expected uint8 for pixels, float for features")
    if min(len(generated), len(held_out)) < 2:
        raise ValueError(f"{len(generated)} generated, {len(held_out)} held-out rows, expected 2 or more of each")


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
    generated: NDArray[Any], real: NDArray[Any], *, n: int | None = None, seed: int = 0
) -> ManifoldCoverage:
    """Precision and recall of `generated` rows against `real` rows at equal n."""
    n = min(len(generated), len(real)) if n is None else n
    if n <= NEIGHBOURS:
        raise DataError(
            f"precision and recall need more than {NEIGHBOURS} rows of each, there are {n}", "raise --count"
        )
    chance = np.random.default_rng(seed)
    a, b = (rows[np.sort(chance.permutation(len(rows))[:n])].astype(np.float64) for rows in (generated, real))
    return ManifoldCoverage(precision=_share_within(a, b), recall=_share_within(b, a), n=n, neighbours=NEIGHBOURS)


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


def _share_within(rows: NDArray[np.float64], references: NDArray[np.float64]) -> float:
    """The share of `rows` in a ball around some reference."""
    radii = np.concatenate(
        # of the sorted distances of a reference to all, the first is its own zero
        [np.sort(_squares(part, references), axis=1)[:, NEIGHBOURS] for part in _part_rows(references)]
    )
    within = [(_squares(part, references) <= radii).any(axis=1) for part in _part_rows(rows)]
    return float(np.concatenate(within).mean())


def _squares(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1) - 2 * a @ b.T
    return np.maximum(squares, 0.0, out=squares)


def _part_rows(rows: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    return [rows[start : start + _CHUNK_ROWS] for start in range(0, len(rows), _CHUNK_ROWS)]
