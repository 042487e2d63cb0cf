"""The roofline of a compute unit: how long an operator takes there, and what holds it up.

    ms = max(FLOPs / reached speed, bytes / reached bandwidth) + dispatch

Reached speeds are peaks of the device table times a share, from published measurements (`anchors`) or assumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from kind_bench.counting.work import ComputePrecision, OpWork
from kind_bench.forecasting.anchors import compute_share
from kind_bench.forecasting.devices import Device, Unit, UnitName
from kind_bench.forecasting.peaks import Range, assumed, is_assumed, peak_speed, range_of

Limit = Literal["compute", "bandwidth", "dispatch"]
Corner = Literal["low", "value", "high"]
CORNERS: tuple[Corner, ...] = ("low", "value", "high")
PORTABLE = "portable"
_OPPOSITE: dict[Corner, Corner] = {"low": "high", "value": "value", "high": "low"}


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitSpeed:
    """A unit at one precision: its peaks, what of them a model reaches, and where that is from.

    `is_whole`: the reached speed was taken on whole models, so traffic of activations is inside it.
    """

    peak_gflops: Range
    reached_gflops: Range
    peak_bandwidth_gbs: Range
    reached_bandwidth_gbs: Range
    is_whole: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Roofline:
    """One corner of what is known of a unit; speeds are reached ones."""

    gflops: float
    bandwidth_gbs: float
    portable_gbs: float
    dispatch_ms: float
    cache_bytes: float

    def time_op(self, op: OpWork) -> tuple[float, Limit]:
        """Milliseconds of one operator, and what they mostly go to."""
        compute_ms = op.flops / self.gflops / 1e6
        if op.backend == PORTABLE:  # plain loops: every byte costs, wherever it lies
            memory_ms = op.bytes_moved / self.portable_gbs / 1e6
        else:
            is_cached = op.activation_bytes <= self.cache_bytes
            memory_ms = (op.weight_bytes if is_cached else op.bytes_moved) / self.bandwidth_gbs / 1e6
        busy_ms = max(compute_ms, memory_ms)
        if self.dispatch_ms > busy_ms:
            return busy_ms + self.dispatch_ms, "dispatch"
        return busy_ms + self.dispatch_ms, "compute" if compute_ms >= memory_ms else "bandwidth"


def unit_speed(device: Device, unit: UnitName, precision: ComputePrecision) -> UnitSpeed | str:
    """Speeds of a unit at a precision, or in words why they are not known."""
    if unit not in device.units:
        return f"no figures of a {unit.upper()} for {device.name}"
    if device.memory_bandwidth_gbs is None:
        return f"no memory bandwidth is known for {device.name}"
    peak = peak_speed(device.units[unit], unit, precision)
    if peak is None:
        return f"no {precision} speed is known for the {unit.upper()} of {device.name}"
    share = compute_share(device, unit, precision)
    bandwidth = range_of(device.memory_bandwidth_gbs)
    # the chip's own share was taken with this very peak, so an error of the peak cancels
    trusted = Range(*(peak.gflops.value,) * 3) if share.is_own else peak.gflops
    return UnitSpeed(
        peak_gflops=peak.gflops,
        reached_gflops=trusted.times(share.share),
        peak_bandwidth_gbs=bandwidth,
        reached_bandwidth_gbs=bandwidth.times(assumed("bandwidth_share", "any")),
        is_whole=share.is_whole,
        notes=tuple(note for note in (peak.note, share.source) if note),
    )


def roofline(device: Device, unit: UnitName, speed: UnitSpeed, corner: Corner) -> Roofline:
    """The corner of `speed` that gives the least time (`low`), the likely (`value`) or the most (`high`)."""
    part = device.units[unit]
    fast = _OPPOSITE[corner]
    bandwidth = getattr(speed.reached_bandwidth_gbs, fast)
    dispatch = range_of(part.dispatch_us) if part.dispatch_us else None
    if dispatch is None and is_assumed("dispatch_us", unit):
        dispatch = assumed("dispatch_us", unit)
    return Roofline(
        gflops=getattr(speed.reached_gflops, fast),
        bandwidth_gbs=bandwidth,
        portable_gbs=bandwidth * getattr(assumed("portable_share", "any"), fast),
        dispatch_ms=getattr(dispatch, corner) / 1e3 if dispatch else 0.0,
        cache_bytes=math.inf if speed.is_whole else _cache_bytes(part, corner),
    )


def _cache_bytes(part: Unit, corner: Corner) -> float:
    """Activations below this stay on the chip; where nobody says, all or none of them do."""
    if part.cache_mb is None:
        return math.inf if corner == "low" else 0.0
    return float(getattr(range_of(part.cache_mb), _OPPOSITE[corner])) * 1e6


def call_cost_ms(device: Device, unit: UnitName) -> Range:
    """What it costs to start a program on a unit, or each part of it that is handed over."""
    own = device.units[unit].call_ms
    return range_of(own) if own else assumed("call_ms", unit)


def sustained_share(device: Device) -> tuple[Range | None, str]:
    """Speed of the warm device as a share of the cold one's, and a word on where that is from."""
    if device.sustained_share is not None:
        return range_of(device.sustained_share), f"warm: {device.sustained_share.source}"
    if not is_assumed("sustained_share", device.form):
        return None, f"warm: no figure for {device.name}"
    return assumed("sustained_share", device.form), f"warm: assumed, no figure for {device.name}"
