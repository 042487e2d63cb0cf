"""Peak speeds of a compute unit by precision, and what is assumed where nobody says, each as a range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from kind_bench.counting.work import ComputePrecision
from kind_bench.data_files import read_table
from kind_bench.forecasting.devices import Figure, Unit, UnitName


class Range(NamedTuple):
    """A number and how far off it may be."""

    low: float
    value: float
    high: float

    def times(self, other: Range) -> Range:
        """The product. Errors of the two are independent, so their logarithms add up as squares."""
        value = self.value * other.value
        down = math.hypot(math.log(self.value / self.low), math.log(other.value / other.low))
        up = math.hypot(math.log(self.high / self.value), math.log(other.high / other.value))
        return Range(value / math.exp(down), value, value * math.exp(up))

    def scaled(self, factor: float) -> Range:
        return Range(self.low * factor, self.value * factor, self.high * factor)


class Peak(NamedTuple):
    """GFLOPS of a unit at a precision, and a word where they were concluded from another precision's."""

    gflops: Range
    note: str = ""


def range_of(figure: Figure) -> Range:
    return Range(figure.low, figure.value, figure.high)


def peak_speed(unit: Unit, kind: UnitName, precision: ComputePrecision) -> Peak | None:
    """The peak from the unit's own figure, or else from a wider number's: int4 computes as int8 does."""
    if precision == "fp32":
        return Peak(range_of(unit.fp32_gflops)) if unit.fp32_gflops else None
    tops = range_of(unit.rated_tops).scaled(1000) if unit.rated_tops else None
    if precision == "fp16":
        if unit.fp16_gflops:
            return Peak(range_of(unit.fp16_gflops))
        if tops:
            return Peak(tops.scaled(0.5), "fp16 speed taken as half of the rated TOPS")
        return Peak(range_of(unit.fp32_gflops), "fp16 taken as fast as fp32") if unit.fp32_gflops else None
    if unit.int8_gops:
        return Peak(range_of(unit.int8_gops))
    if tops:
        return Peak(tops)
    wider = unit.fp16_gflops or unit.fp32_gflops
    if wider is None:
        return None
    return Peak(range_of(wider).times(assumed("int8_over_float", kind)), "int8 speed assumed from floating point")


def assumed(name: str, key: str) -> Range:
    """What `data/assumptions.toml` says; raises KeyError where it says nothing."""
    entry = _assumptions()[name][key]
    return Range(entry["low"], entry["value"], entry["high"])


def is_assumed(name: str, key: str) -> bool:
    return key in _assumptions()[name]


@cache
def _assumptions() -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    table: Mapping[str, Mapping[str, Mapping[str, float]]] = read_table("assumptions")
    return table
