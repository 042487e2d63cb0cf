"""Fréchet distance between two sets of feature rows, at equal n, with its interval and its floor.

The estimate is biased upward by an amount that grows as n shrinks: two sets of real photos are not at
distance zero. So a distance says something only beside the floor of the same n, and beside the distance to
the nearest training photo (`neighbours`), because a model that copies its photos scores below the floor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kind_core.errors import DataError
from kind_train.evaluate.neighbours import require_disjoint

Rows = NDArray[np.floating[Any]]
Counts = NDArray[np.integer[Any]]
Draw = Callable[[int], Counts]  # how often each of so many rows counts


@dataclass(frozen=True, kw_only=True, slots=True)
class FrechetComparison:
    """Fréchet distance of two sets of n rows each, with a bootstrap interval.

    distance:        |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), m mean and C covariance (1 / (n - 1))
    low, high:       distance + q - median(replicates), q the (1 -+ level) / 2 quantiles of replicates
    n:               rows of each set; the larger set is subsampled without replacement
    level:           what the interval holds of the replicates
    num_replicates:  replicates, each resampling both sets with replacement
    seed:            of the subsample and the replicates

    Resampling with replacement repeats rows, which lifts every replicate as a smaller n would; the interval
    is therefore moved to the estimate, and cut at 0. It shows the spread from sampling n rows, not the bias
    of a finite n, and errs wide where the two sets are alike.
    """

    distance: float
    low: float
    high: float
    n: int
    level: float
    num_replicates: int
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Moments:
    """`mean` (d,) and `covariance` (d, d), 1 / (n - 1), of `n` rows, in float64."""

    n: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    def root(self) -> NDArray[np.float64]:
        """X (d, d) with X^T X the covariance, which may be singular."""
        values, vectors = np.linalg.eigh(self.covariance)
        return np.asarray(np.sqrt(np.maximum(values, 0))[:, None] * vectors.T)


class MomentSums:
    """Adds rows up, about the mean of the first part: no digits are lost where it lies far from zero."""

    def __init__(self) -> None:
        self.n = 0
        self._origin = self._sum = np.zeros(0)
        self._scatter = np.zeros((0, 0))

    def add(self, rows: Rows) -> None:
        """rows (n, d), the same d in every part."""
        if not np.isfinite(rows).all():
            raise ValueError("rows hold NaN or infinity")
        if self.n == 0:
            d = rows.shape[1]
            self._origin, self._sum = rows.astype(np.float64).mean(0), np.zeros(d)
            self._scatter = np.zeros((d, d))
        centred = rows.astype(np.float64) - self._origin
        self.n += len(rows)
        self._sum += centred.sum(0)
        self._scatter += centred.T @ centred

    def moments(self) -> Moments:
        """Of all rows so far; raises ValueError for fewer than two."""
        if self.n < 2:
            raise ValueError(f"{self.n} rows have no covariance, expected 2 or more")
        offset = self._sum / self.n
        scatter = self._scatter - self.n * np.outer(offset, offset)
        return Moments(n=self.n, mean=self._origin + offset, covariance=scatter / (self.n - 1))


def pool_moments(parts: Sequence[Moments]) -> Moments:
    """Those of all rows of the parts together (Chan, Golub and LeVeque, 1979)."""
    n = sum(part.n for part in parts)
    mean = np.sum([part.n * part.mean for part in parts], axis=0) / n
    scatter = np.zeros_like(parts[0].covariance)
    for part in parts:
        offset = part.mean - mean
        scatter += (part.n - 1) * part.covariance + part.n * np.outer(offset, offset)
    return Moments(n=n, mean=mean, covariance=scatter / (n - 1))


def frechet_distance(a: Rows, b: Rows) -> float:
    """Fréchet distance between Gaussians fitted to the rows of `a` (n_a, d) and `b` (n_b, d), in float64.

    Needs no matrix square root and no full-rank covariance: see `_trace_of_root`.
    """
    _check_rows(a, b)
    return _distance(a.astype(np.float64), b.astype(np.float64), np.ones(len(a), int), np.ones(len(b), int))


def compare_frechet(
    a: Rows, b: Rows, *, n: int | None = None, num_replicates: int = 200, level: float = 0.95, seed: int = 0
) -> FrechetComparison:
    """Fréchet distance of `a` and `b` at equal n, the size of the smaller set unless given.

    Raises DataError when a set has fewer than n rows.
    """
    if num_replicates < 1 or not 0 < level < 1:
        raise ValueError(f"num_replicates is {num_replicates}, level {level}, expected > 0 and in (0, 1)")
    a, b = subsample_equal(a, b, n=n, seed=seed)
    _check_rows(a, b)
    fitted_a, fitted_b = a.astype(np.float64), b.astype(np.float64)

    def measure(draw: Draw) -> float:
        return _distance(fitted_a, fitted_b, draw(len(a)), draw(len(b)))

    return _with_interval(measure, len(a), num_replicates, level, seed)


def compare_with_moments(
    rows: Rows, real: Moments, *, num_replicates: int = 100, level: float = 0.95, seed: int = 0
) -> FrechetComparison:
    """Fréchet distance of `rows` to a set that is known by mean and covariance; n is the number of `rows`.

    The set stands still: replicates resample the rows alone.
    """
    if rows.ndim != 2 or len(rows) < 2 or rows.shape[1:] != real.mean.shape or not np.isfinite(rows).all():
        raise ValueError(f"rows are {rows.shape}, expected finite (n, {len(real.mean)}), n > 1")
    rows, root = rows.astype(np.float64), real.root()
    trace = np.trace(real.covariance)

    def measure(draw: Draw) -> float:
        mean, own = _fit(rows, draw(len(rows)))
        squared = np.sum((mean - real.mean) ** 2) + np.sum(own**2) + trace - 2 * _trace_of_root(own, root)
        return float(max(0.0, squared))

    return _with_interval(measure, len(rows), num_replicates, level, seed)


def shift_interval(estimate: float, replicates: NDArray[np.float64], level: float) -> tuple[float, float]:
    """The `level` interval of bootstrap replicates, moved so that their median lies at the estimate."""
    tail = (1 - level) / 2
    low, middle, high = np.quantile(replicates, [tail, 0.5, 1 - tail])
    return float(estimate + low - middle), float(estimate + high - middle)


def real_floor(
    real_a: Rows, real_b: Rows, *, n: int | None = None, num_replicates: int = 200, level: float = 0.95, seed: int = 0
) -> FrechetComparison:
    """The distance that perfect samples would have: that of two disjoint sets of real photos.

    `n` must be that of the comparison it is held against.
    Raises DataError when photos are in both sets, which would lower the floor.
    """
    require_disjoint(real_a, real_b)
    return compare_frechet(real_a, real_b, n=n, num_replicates=num_replicates, level=level, seed=seed)


def subsample_equal(a: Rows, b: Rows, *, n: int | None = None, seed: int = 0) -> tuple[Rows, Rows]:
    """Draw n rows of each without replacement, in their order; n is the size of the smaller set unless given.

    Raises DataError when a set has fewer than n rows, or n is below 2.
    """
    most = min(len(a), len(b))
    n = most if n is None else n
    if not 2 <= n <= most:
        raise DataError(
            f"cannot compare {n} rows of sets of {len(a)} and {len(b)}, expected 2 to {most}",
            "give more images, or a smaller n",
        )
    rng = np.random.default_rng(seed)
    some, others = (rows[np.sort(rng.choice(len(rows), n, replace=False))] for rows in (a, b))
    return some, others


def _with_interval(
    measure: Callable[[Draw], float], n: int, num_replicates: int, level: float, seed: int
) -> FrechetComparison:
    """What `measure` finds where each row counts once, with the interval of replicates that count them by chance."""
    # Spawned, so that the replicates do not repeat the draws of the subsample made with the same seed.
    (rng,) = np.random.default_rng(seed).spawn(1)
    distance = measure(lambda n: np.ones(n, int))
    replicates = [measure(lambda n: rng.multinomial(n, np.full(n, 1 / n))) for _ in range(num_replicates)]
    low, high = shift_interval(distance, np.array(replicates), level)
    return FrechetComparison(
        distance=distance, low=max(0.0, low), high=high, n=n, level=level, num_replicates=num_replicates, seed=seed
    )


def _distance(a: Rows, b: Rows, counts_a: Counts, counts_b: Counts) -> float:
    """The distance with row i taken `counts[i]` times: a bootstrap replicate without repeated rows."""
    mean_a, root_a = _fit(a, counts_a)
    mean_b, root_b = _fit(b, counts_b)
    traces = np.sum(root_a**2) + np.sum(root_b**2)
    squared = np.sum((mean_a - mean_b) ** 2) + traces - 2 * _trace_of_root(root_a, root_b)
    return float(max(0.0, squared))  # equal sets end at minus a rounding error


def _fit(rows: Rows, counts: Counts) -> tuple[Rows, Rows]:
    """(mean, X) of the counted rows, with X^T X their covariance."""
    taken = counts > 0
    rows, weights = rows[taken], counts[taken].astype(np.float64)
    total = weights.sum()
    mean = weights @ rows / total
    return mean, (rows - mean) * np.sqrt(weights / (total - 1))[:, None]


def _trace_of_root(root_a: Rows, root_b: Rows) -> float:
    """tr((C_a C_b)^(1/2)) for C = X^T X, as the sum of the singular values of X_a X_b^T.

    C_a C_b and (X_a X_b^T)(X_a X_b^T)^T share their non-zero eigenvalues, so no root of a singular,
    unsymmetric matrix is taken and nothing turns complex.
    """
    product = _shorten(root_a) @ _shorten(root_b).T
    return float(np.linalg.svd(product, compute_uv=False).sum())


def _shorten(root: Rows) -> Rows:
    """The R factor of X where X has more rows than columns: R^T R = X^T X."""
    return np.asarray(np.linalg.qr(root, mode="r")) if len(root) > root.shape[1] else root


def _check_rows(a: Rows, b: Rows) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"rows are {a.shape} and {b.shape}, expected (n_a, d) and (n_b, d), n > 1")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("rows hold NaN or infinity")
