"""Nonnegative least squares on relative errors, drawn towards a prior of which only the ratios are believed.

minimise  sum_i ((x_i . r - y_i) / y_i)^2 + strength * sum_k (r_k / (speed * prior_k) - 1)^2,   r >= 0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

_STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
# With too few rows to leave one out there is nothing to tell a range by, and a few tell little of others.
_FEWEST = 4
_FACTOR_OF_FEW = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """Rates, and by leaving one row out: the median relative error, and the factor that nine of ten stay within."""

    rates: tuple[float, ...]
    median_error: float | None
    factor: float


def fit_rates(rows: Sequence[Sequence[float]], times: Sequence[float], prior: Sequence[float]) -> Fit:
    """Rates r with rows . r = times; `prior` is what they are drawn to, up to a common speed."""
    x, y, r0 = (np.asarray(a, np.float64) for a in (rows, times, prior))
    if len(y) < _FEWEST:
        speed = float(y.sum() / (x @ r0).sum())
        return Fit(rates=tuple((speed * r0).tolist()), median_error=None, factor=_FACTOR_OF_FEW)
    ratios = {strength: _leave_one_out(x, y, r0, strength) for strength in _STRENGTHS}
    best = min(_STRENGTHS, key=lambda strength: float(np.mean(np.log(ratios[strength]) ** 2)))
    rates, ratio = _solve(x, y, r0, best), ratios[best]
    return Fit(
        rates=tuple(rates.tolist()),
        median_error=float(np.median(np.abs(ratio - 1))),
        factor=float(np.exp(np.hypot(np.quantile(np.abs(np.log(ratio)), 0.9), 2 * np.log(_FACTOR_OF_FEW) / len(y)))),
    )


def _leave_one_out(x: Matrix, y: Matrix, r0: Matrix, strength: float) -> Matrix:
    """Forecast over measured, each row by the others."""
    keep = ~np.eye(len(y), dtype=bool)
    forecasts = [float(x[i] @ _solve(x[keep[i]], y[keep[i]], r0, strength)) for i in range(len(y))]
    ratios: Matrix = np.maximum(np.array(forecasts), 1e-12) / y
    return ratios


def _solve(x: Matrix, y: Matrix, r0: Matrix, strength: float) -> Matrix:
    """In multiples of the prior at its best speed, which keeps it well scaled; the prior's term makes it convex."""
    speed = float(np.exp(np.median(np.log(y / (x @ r0)))))
    scaled = x * (speed * r0) / y[:, None]  # multiples of one everywhere give about one in every row
    gram = scaled.T @ scaled + strength * np.eye(len(r0))
    return _minimise(gram, scaled.sum(axis=0) + strength) * (speed * r0)


def _minimise(gram: Matrix, aim: Matrix) -> Matrix:
    """The m >= 0 with the least m . gram . m / 2 - aim . m, by Lawson and Hanson's active sets; gram is definite."""
    m: Matrix = np.zeros(len(aim))
    free = np.zeros(len(aim), bool)
    while True:
        pull = np.where(free, -np.inf, aim - gram @ m)
        if pull.max() <= 1e-12:
            return m
        free[pull.argmax()] = True
        while True:
            trial = np.zeros(len(aim))
            trial[free] = np.linalg.solve(gram[np.ix_(free, free)], aim[free])
            if trial[free].min() > 0:
                m = trial
                break
            blocked = free & (trial <= 0)
            m = m + (m[blocked] / (m[blocked] - trial[blocked])).min() * (trial - m)
            free &= m > 1e-15
