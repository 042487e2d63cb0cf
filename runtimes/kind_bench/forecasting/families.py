"""What a unit without a measurement reaches, from the other units of its family.

    CPU, GPU   log(share of the peak) = a(model)
    NPU        log(speed)             = a(model) + b x (year - 2023)

An NPU's peak is what its maker prints, which says less than the year it came out: Hexagons of four years lie within 8 %
of one line, and up to 58 % off their makers' numbers. `b` is drawn towards a quarter more a year, where few chips say
otherwise; the models' constants are drawn towards each other, so that one model on one chip counts for all a little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from kind_bench.forecasting.anchors import Anchor

_YEAR = 2023
_GROWTH = 0.25  # of the logarithm, a year
_GROWTH_WEIGHT = 1.0  # of one measurement, a year away
_ALIKE_WEIGHT = 0.05


def predict_share(
    rows: Sequence[Anchor], peak_gflops: float, year: int | None, workload: str | None, *, by_year: bool
) -> float:
    """The share of `peak_gflops` that a unit of the rows' family reaches, on one model or on their mean.

    `by_year`: from the years instead of the peaks, where every row and the unit have one.
    """
    years = [row.year for row in rows]
    if not by_year or year is None or None in years:
        return math.exp(_line([(row.workload, 0.0, math.log(row.share)) for row in rows], workload, 0.0))
    points = [(row.workload, (row.year or 0) - _YEAR, math.log(row.share * row.peak_gflops)) for row in rows]
    return math.exp(_line(points, workload, year - _YEAR)) / peak_gflops


def _line(points: Sequence[tuple[str, float, float]], workload: str | None, age: float) -> float:
    """Constants by model and one slope, ridge least squares; at `age`, for one of the models or their mean."""
    names = sorted({name for name, _, _ in points})
    size = len(names)
    data = np.array([[x, *(float(name == other) for other in names)] for name, x, _ in points])
    growth = math.sqrt(_GROWTH_WEIGHT) * np.eye(1, 1 + size)
    alike = math.sqrt(_ALIKE_WEIGHT) * (np.eye(size) - 1 / size)
    matrix = np.vstack([data, growth, np.hstack([np.zeros((size, 1)), alike])])
    values = np.array([*(y for _, _, y in points), math.sqrt(_GROWTH_WEIGHT) * _GROWTH, *[0.0] * size])
    slope, *constants = np.linalg.lstsq(matrix, values, rcond=None)[0]
    known = constants[names.index(workload)] if workload in names else float(np.mean(constants))
    return float(known + slope * age)
