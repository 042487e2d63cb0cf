"""Mean and covariance of feature rows that come in parts: all of a data set that a Frechet distance needs, in d^2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.floating[Any]]


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
