"""What share of its peak a unit reaches, by published measurements of other models; and how far off that is.

    share = FLOPs / (peak x (ms - start))      a chip's own, or by `families` from the others of its unit's family

How far off is measured, not guessed: every row is forecast from the others' shares (leave one device out), and rows
that took no part are forecast from the chip's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean

from kind_bench.counting.work import ComputePrecision
from kind_bench.data_files import read_table
from kind_bench.forecasting.devices import Device, UnitName, load_device
from kind_bench.forecasting.families import predict_share
from kind_bench.forecasting.peaks import Range, assumed, peak_speed, range_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Anchor:
    """One published measurement. `flops` and `ms` are of one call."""

    device: Device
    measured_on: str
    unit: UnitName
    precision: ComputePrecision
    workload: str
    flops: float
    ms: float
    is_fit: bool

    @property
    def share(self) -> float:
        """Of the peak in the device table."""
        return self.flops / 1e6 / (self.ms - self._start_ms) / self.peak_gflops

    def forecast_ms(self, share: float) -> float:
        return self.flops / 1e6 / (self.peak_gflops * share) + self._start_ms

    @property
    def year(self) -> int | None:
        return self.device.year

    @property
    def group(self) -> tuple[str, UnitName, ComputePrecision]:
        """What shares are alike in: the unit's family, the unit and the precision."""
        return self.device.family(self.unit), self.unit, self.precision

    @property
    def peak_gflops(self) -> float:
        peak = peak_speed(self.device.units[self.unit], self.unit, self.precision)
        assert peak is not None, f"{self.device.id} has a row in anchors.toml and no {self.precision} speed"
        return peak.gflops.value

    @property
    def _start_ms(self) -> float:
        own = self.device.units[self.unit].call_ms
        return (range_of(own) if own else assumed("call_ms", self.unit)).value


@dataclass(frozen=True, kw_only=True, slots=True)
class AnchorCheck:
    """A row forecast without itself: `error` is (forecast - measured) / measured."""

    anchor: Anchor
    forecast_ms: float

    @property
    def error(self) -> float:
        return self.forecast_ms / self.anchor.ms - 1

    @property
    def factor(self) -> float:
        """How many times too long or too short, at least 1."""
        return max(self.forecast_ms / self.anchor.ms, self.anchor.ms / self.forecast_ms)


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A share of a unit's peak. `is_own`: from this chip's measurement, so it holds for the peak it was taken with.

    `is_whole`: from whole models, so that what is no product is inside it.
    """

    share: Range
    is_own: bool
    is_whole: bool
    source: str


def compute_share(device: Device, unit: UnitName, precision: ComputePrecision) -> Share:
    """The chip's own share, its family's, or what is assumed of such a unit."""
    computed: ComputePrecision = "int8" if precision == "int4" else precision
    family = device.family(unit)
    rows = [row for row in fit_anchors() if row.group == (family, unit, computed)]
    own = [row for row in rows if row.device.id == device.id]
    if own:
        checks = held_out()
        factor = max(check.factor for check in [c for c in checks if c.anchor.unit == unit] or checks)
        share = _widened(_mean_share(own), factor)
        return Share(share=share, is_own=True, is_whole=True, source=_words(own, "its own", factor))
    peak = peak_speed(device.units[unit], unit, computed)
    if rows and peak is not None:
        factor = _family_factor(rows)
        share = _widened(_predict(rows, peak.gflops.value, device.year, unit, None), factor)
        return Share(share=share, is_own=False, is_whole=True, source=_words(rows, f"{family}'s", factor))
    words = f"compute share of a {unit.upper()} assumed: no published measurement on {family}'s at this precision"
    return Share(share=assumed("compute_share", unit), is_own=False, is_whole=False, source=words)


@cache
def leave_one_out() -> tuple[AnchorCheck, ...]:
    """Every fit row, forecast from the other devices of its unit's family at its precision."""
    checks = []
    for row in fit_anchors():
        others = [other for other in fit_anchors() if other.group == row.group and other.device.id != row.device.id]
        if others:
            share = _predict(others, row.peak_gflops, row.year, row.unit, row.workload)
            checks.append(AnchorCheck(anchor=row, forecast_ms=row.forecast_ms(share)))
    return tuple(checks)


@cache
def held_out() -> tuple[AnchorCheck, ...]:
    """Every row that took no part in the fit, forecast from the chip's own share on the other model."""
    checks = []
    for row in _anchors():
        own = [fit for fit in fit_anchors() if (fit.device.id, fit.group) == (row.device.id, row.group)]
        if not row.is_fit and own:
            checks.append(AnchorCheck(anchor=row, forecast_ms=row.forecast_ms(_mean_share(own))))
    return tuple(checks)


@cache
def fit_anchors() -> tuple[Anchor, ...]:
    """The rows that give shares."""
    return tuple(row for row in _anchors() if row.is_fit)


def describe_checks() -> str:
    """Both checks as a table for people."""
    lines = [f"  {'device':<25} {'model':<34} unit precision  measured  forecast   error"]
    for title, checks in (
        ("leave one device out: from the other devices of its unit's family", leave_one_out()),
        ("held out: the chip's own share on another model", held_out()),
    ):
        lines.append(title)
        lines += [_describe_check(check) for check in checks]
        errors = sorted(abs(check.error) for check in checks)
        lines.append(f"  median {errors[len(errors) // 2]:.0%}, worst {errors[-1]:.0%} of {len(errors)}")
    return "\n".join(lines)


def _describe_check(check: AnchorCheck) -> str:
    row = check.anchor
    names = f"  {row.device.name:<25} {row.workload:<34.34} {row.unit:<5}{row.precision:<9}"
    return f"{names}{row.ms:>7.2f} ms{check.forecast_ms:>7.2f} ms {check.error:>+7.0%}"


def _mean_share(rows: Sequence[Anchor]) -> float:
    return math.exp(fmean(math.log(row.share) for row in rows))


def _predict(
    rows: Sequence[Anchor], peak_gflops: float, year: int | None, unit: UnitName, workload: str | None
) -> float:
    return predict_share(rows, peak_gflops, year, workload, by_year=unit == "npu")


def _family_factor(rows: Sequence[Anchor]) -> float:
    """The worst of the checks of a family; of one with a single chip, which nothing checks, the worst of all."""
    checks = leave_one_out()
    return max(check.factor for check in [c for c in checks if c.anchor in rows] or checks)


def _widened(share: float, factor: float) -> Range:
    return Range(share / factor, share, share * factor)


def _words(rows: Sequence[Anchor], whose: str, factor: float) -> str:
    models = ", ".join(dict.fromkeys(f"{row.workload} on {row.measured_on}" for row in rows))
    checked = f"up to {factor:.2f} times off where that was checked, thin products may reach less"
    return f"compute share from {whose} measurements ({models}): {checked}"


@cache
def _anchors() -> tuple[Anchor, ...]:
    data = read_table("anchors")
    anchors = []
    for row in data["rows"]:
        workload = data["workloads"][row["workload"]]
        calls = workload.get("calls", 1)
        for precision, ms in row["ms"].items():
            anchors.append(
                Anchor(
                    device=load_device(row["device"]),
                    measured_on=row["measured_on"],
                    unit=row["unit"],
                    precision=precision,
                    workload=workload["name"],
                    flops=workload["gflop"] * 1e9 / calls,
                    ms=ms / calls,
                    is_fit=row["role"] == "fit",
                )
            )
    return tuple(anchors)
