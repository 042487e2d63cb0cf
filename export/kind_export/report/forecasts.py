"""What a report says of devices that are not here: forecasts by device, target and unit, and their rooflines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import cast

from kind_bench.counting.work import OpClass, ProgramWork
from kind_bench.forecasting.devices import Device, UnitName
from kind_bench.forecasting.forecast import Forecast, default_unit, forecast, forecast_picture
from kind_bench.forecasting.roofline import UnitSpeed, unit_speed
from kind_export.report.work import Works
from kind_runtimes.documents.reports.document import ForecastEntry, Roofline, TimesEntry
from kind_runtimes.engine_rows import ENGINES
from kind_runtimes.manifest import Manifest

# Where a user names none: the three chips of the paper and an older iPhone.
DEFAULT_DEVICES = ("apple-a16", "apple-a18", "snapdragon-8-gen-3", "kirin-9020")
_APPLE_UNITS: tuple[UnitName, ...] = ("npu", "gpu")


def describe_forecasts(works: Works, manifest: Manifest, devices: Sequence[Device]) -> list[ForecastEntry]:
    """A forecast for each device, target that runs there and unit; what is not known says why."""
    return [
        _describe(works, manifest, device, target, unit)
        for device in devices
        for target in works
        if ENGINES[target].vendor in (None, device.vendor)
        for unit in _units(device, works[target]["step"])
    ]


def _units(device: Device, step: ProgramWork) -> Iterator[UnitName]:
    """Where the programs of a target may run; Core ML's fp32 does not run on the Neural Engine."""
    usual = default_unit(step)
    if not ENGINES[step.target].picks_unit or usual not in _APPLE_UNITS:
        yield usual
        return
    found = [unit for unit in _APPLE_UNITS[_APPLE_UNITS.index(usual) :] if unit in device.units]
    yield from found or [usual]


def _describe(works: Works, manifest: Manifest, device: Device, target: str, unit: UnitName) -> ForecastEntry:
    steps = manifest.sampling.steps
    unguided = manifest.sampling.guided.count(False)
    chosen = unit if unit in device.units else None
    step = forecast(works[target]["step"], device, unit=chosen)
    picture = forecast_picture(works[target], device, steps=steps, unguided_steps=unguided, unit=chosen)
    return {
        "kind": "forecast",
        "device": device.id,
        "device_name": device.name,
        "target": target,
        "unit": step.unit,
        "unit_name": device.units[step.unit].name if step.unit in device.units else "",
        "precision": step.precision,
        "method": step.method,
        "reason": step.reason,
        "step": _times(step),
        "picture": _times(picture),
        "limited_by": cast("dict[str, str]", dict(step.limited_by)),
        "notes": list(picture.notes),
        "unsure": dict(step.unsure),
        "roofline": _roofline(device, step, works[target]["step"]),
    }


def _times(one: Forecast) -> TimesEntry:
    return cast(TimesEntry, {name: getattr(one, name) for name in TimesEntry.__annotations__})


def _roofline(device: Device, step: Forecast, work: ProgramWork) -> Roofline | None:
    """The two lines of a unit, and where the operator classes that multiply lie below them."""
    speed = unit_speed(device, step.unit, step.precision)
    if not isinstance(speed, UnitSpeed) or not step.ms_by_class:
        return None
    flops: defaultdict[OpClass, int] = defaultdict(int)
    moved: defaultdict[OpClass, int] = defaultdict(int)
    cache_mb = device.units[step.unit].cache_mb
    cache_bytes = cache_mb.value * 1e6 if cache_mb else 0
    for op in work.ops:
        flops[op.op_class] += op.flops
        # as the forecast has it: what stays in the unit's cache is no traffic
        moved[op.op_class] += op.weight_bytes if op.activation_bytes <= cache_bytes else op.bytes_moved
    return {
        "peak_gflops": speed.peak_gflops.value,
        "reached_gflops": speed.reached_gflops.value,
        "peak_bandwidth_gbs": speed.peak_bandwidth_gbs.value,
        "reached_bandwidth_gbs": speed.reached_bandwidth_gbs.value,
        "points": [
            {
                "name": name,
                "flops": flops[name],
                "bytes_moved": moved[name],
                "flops_per_byte": flops[name] / moved[name] if moved[name] else None,
                "gflops": flops[name] / 1e6 / step.ms_by_class[name],
                "limited_by": step.limited_by.get(name),
            }
            for name in flops
            if flops[name] and step.ms_by_class.get(name)
        ],
    }
