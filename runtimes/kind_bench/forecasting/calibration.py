"""Rates of a device by measurements taken on it: milliseconds per GFLOP, per megabyte, per operator, per call.

    ms = sum of rate x amount      rates >= 0, one set for each runtime and way of running it

The rates are fitted to relative errors and drawn towards those of an ordinary CPU times one common speed: with a
single measurement that speed is all there is, with many they decide alone. How strongly they are drawn, and how far
off a forecast may be, comes out of leaving one measurement out at a time.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from kind_bench.counting.work import OpWork, ProgramWork
from kind_bench.forecasting.devices import FORMAT_VERSION, Device, UnitName, describe_device, read_device
from kind_bench.forecasting.nonnegative import fit_rates
from kind_bench.forecasting.roofline import PORTABLE, Limit
from kind_core.console import count_of
from kind_core.errors import DeviceError
from kind_core.files.staging import file_kind, staged
from kind_runtimes.engine_rows import ENGINES

# Milliseconds per unit on an ordinary CPU of two cores: only their ratios count, and those of few measurements most.
_PRIOR: Mapping[str, float] = {
    "gflop linear fp32": 12,
    "gflop linear fp16": 12,
    "gflop linear int8": 6,
    "gflop linear int4": 8,
    "gflop attention": 16,
    "gflop convolution": 16,
    "MB weights": 0.06,
    "MB linear": 0.08,
    "MB attention": 0.12,
    "MB softmax": 0.3,
    "MB norm": 0.15,
    "MB elementwise": 0.12,
    "MB quantize": 0.15,
    "MB layout": 0.12,
    "MB portable": 1.0,
    "operators": 0.004,
    "delegates": 0.02,
    "calls": 0.03,
}
_LIMITS: Mapping[str, Limit] = {"gflop": "compute", "MB": "bandwidth"}
_UNITS: Mapping[str, UnitName] = {"CPU": "cpu", "XNNPACK": "cpu", "cpu-only": "cpu", "cpu-and-gpu": "gpu"}
_CLASSES = {"convolution": "linear", "lookup": "layout", "other": "layout"}  # whose bytes cost alike
_SHORTEST_SHARE = 0.01

BundleWorks = Mapping[str, Mapping[str, ProgramWork]]  # by target and program, see counting.count_bundle


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One program's median time of a run on the device; `warm_ms` after long work, loading per megabyte of weights."""

    work: ProgramWork
    ms: float
    threads: int | None = None
    provider: str | None = None
    first_load_ms_per_mb: float | None = None
    warm_ms: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """Fitted rates of one runtime. `factor`: nine of ten measurements left out of the fit were within it, either way.

    `measured` are the rates that a measurement had a part in; the others follow from an ordinary CPU's.
    """

    runtime: str
    threads: int | None
    provider: str | None
    ms_per: Mapping[str, float]
    measured: tuple[str, ...]
    num_measurements: int
    median_error: float | None
    factor: float
    first_load_ms_per_mb: float | None = None
    sustained_share: float | None = None

    @property
    def unit(self) -> UnitName:
        """The part of the chip that the provider asks for; those of ONNX that are no CPU's ask for an accelerator."""
        if self.provider is None:
            return "npu" if ENGINES[self.runtime].picks_unit else "cpu"
        return _UNITS.get(self.provider, "npu")

    @property
    def label(self) -> str:
        threads = count_of(self.threads, "thread") if self.threads else "the runtime's own threads"
        return f"{self.runtime} ({self.provider or 'default'}, {threads})"

    def time(self, amounts: Mapping[str, float]) -> float:
        """Milliseconds of these amounts."""
        return sum(self.ms_per[name] * amount for name, amount in amounts.items())

    def split(self, amounts: Mapping[str, float]) -> dict[Limit, float]:
        """The same by what it goes to."""
        parts: dict[Limit, float] = defaultdict(float)
        for name, amount in amounts.items():
            parts[limit_of(name)] += self.ms_per[name] * amount
        return parts

    def unmeasured(self, amounts: Mapping[str, float]) -> tuple[str, ...]:
        """What no measurement had in it: its rate is the ordinary CPU's at the fitted speed."""
        return tuple(name for name in amounts if name not in self.measured)


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Rates of a device, by runtime and way of running it; `bundles` were measured."""

    rates: tuple[Rates, ...]
    bundles: tuple[str, ...] = ()

    def find(
        self, runtime: str, *, unit: UnitName | None = None, threads: int | None = None, provider: str | None = None
    ) -> Rates | None:
        """The rates of a runtime; where several ways of running it were measured, of the one measured most."""
        fitting = [
            rates
            for rates in self.rates
            if rates.runtime == runtime
            and unit in (None, rates.unit)
            and threads in (None, rates.threads)
            and provider in (None, rates.provider)
        ]
        return max(fitting, key=lambda rates: (rates.num_measurements, rates.threads or 0), default=None)


def op_amounts(op: OpWork) -> dict[str, float]:
    """What one operator costs, by rate."""
    if not op.flops and not op.bytes_moved:
        return {}  # a reshape
    amounts = {"operators": 1.0}
    if op.flops:
        kind = f"gflop {op.op_class}" if op.op_class in ("attention", "convolution") else f"gflop linear {op.precision}"
        amounts[kind] = op.flops / 1e9
    if op.backend == PORTABLE:
        return amounts | {"MB portable": op.bytes_moved / 1e6}
    if op.weight_bytes:
        amounts["MB weights"] = op.weight_bytes / 1e6
    if op.activation_bytes:
        amounts[f"MB {_CLASSES.get(op.op_class, op.op_class)}"] = op.activation_bytes / 1e6
    return amounts


def start_amounts(work: ProgramWork) -> dict[str, float]:
    """What starting the program costs, by rate."""
    return {"calls": 1.0} | ({"delegates": float(work.num_delegates)} if work.num_delegates else {})


def work_amounts(work: ProgramWork) -> dict[str, float]:
    """What a run of the program costs, by rate."""
    total: defaultdict[str, float] = defaultdict(float)
    for amounts in (start_amounts(work), *map(op_amounts, work.ops)):
        for name, amount in amounts.items():
            total[name] += amount
    return dict(total)


def limit_of(name: str) -> Limit:
    """What a rate stands for."""
    return _LIMITS.get(name.split()[0], "dispatch")


def fit_measurements(measurements: Sequence[Measurement]) -> Calibration:
    """Fit rates to measurements of one device, each runtime and way of running it apart."""
    if not measurements:
        raise DeviceError("there is no measurement to calibrate with", "let kind-bench run finish a case at least")
    groups: dict[tuple[str, int | None, str | None], list[Measurement]] = defaultdict(list)
    for one in measurements:
        groups[one.work.target, one.threads, one.provider].append(one)
    return Calibration(rates=tuple(_fit_group(group) for group in groups.values()))


def _fit_group(every: Sequence[Measurement]) -> Rates:
    # what is that much shorter than the rest, such as decoding pixels, is the clock's and the call's time
    longest_ms = max(one.ms for one in every)
    group = [one for one in every if one.ms >= _SHORTEST_SHARE * longest_ms]
    amounts = [work_amounts(one.work) for one in group]
    names = list(_PRIOR)
    fitted = fit_rates(
        [[row.get(name, 0.0) for name in names] for row in amounts],
        [one.ms for one in group],
        list(_PRIOR.values()),
    )
    return Rates(
        runtime=group[0].work.target,
        threads=group[0].threads,
        provider=group[0].provider,
        ms_per=dict(zip(names, fitted.rates, strict=True)),
        measured=tuple(name for name in names if any(name in row for row in amounts)),
        num_measurements=len(group),
        median_error=fitted.median_error,
        factor=fitted.factor,
        first_load_ms_per_mb=_median_of(one.first_load_ms_per_mb for one in group),
        sustained_share=_median_of(None if one.warm_ms is None else min(1.0, one.ms / one.warm_ms) for one in group),
    )


def parse_calibration(device: Device) -> Calibration | None:
    """The calibration in a device's file, or None."""
    if device.calibration is None:
        return None
    rates = [cast("dict[str, Any]", entry) for entry in device.calibration["rates"]]
    return Calibration(
        rates=tuple(Rates(**entry | {"measured": tuple(entry["measured"])}) for entry in rates),
        bundles=tuple(device.calibration["bundles"]),
    )


def _check_calibrated(file: Path) -> None:
    if read_device(file).calibration is None:
        raise DeviceError(f"{file} has no calibration")


CALIBRATED = file_kind("a calibrated device file", _check_calibrated)


def write_calibrated(device: Device, calibration: Calibration, file: Path, *, force: bool = False) -> None:
    """Write a device file with its calibration, for `--device FILE`."""
    if file.suffix != ".json":
        raise DeviceError(f"cannot write {file}: a calibrated device is a .json file", f"use -o {file.stem}.json")
    data = {**describe_device(device), "calibration": {"format_version": FORMAT_VERSION, **asdict(calibration)}}
    with staged(file, CALIBRATED, force=force) as partial:
        partial.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _median_of(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
