"""How long a program will take on a device that is not here: a range, what limits it, and how sure that is.

By the roofline of the device table, or by a calibration from measurements taken on the device. The paper's floor,
FLOPs over sustained GFLOPS, stands beside it. Nothing here was measured on the device: `kind` says `forecast`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from kind_bench.counting.work import ComputePrecision, OpClass, OpWork, ProgramWork
from kind_bench.forecasting.calibration import Calibration, Rates, op_amounts, parse_calibration, start_amounts
from kind_bench.forecasting.devices import Device, Status, UnitName
from kind_bench.forecasting.roofline import (
    CORNERS,
    Corner,
    Limit,
    UnitSpeed,
    call_cost_ms,
    roofline,
    sustained_share,
    unit_speed,
)
from kind_core.console import count_of
from kind_core.errors import DeviceError
from kind_core.flops import latency_floor_s
from kind_runtimes.engine_rows import ENGINES

Method = Literal["roofline", "calibrated", "floor only"]

_UNMEASURED_FACTOR = 1.5  # a rate that no measurement had a part in
_FLOOR_ONLY = "calibrate with kind-bench calibrate for more than the floor"
_FIRST_RUN = "the first run compiles and loads the program: not forecast, measure it"


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """Milliseconds of one run of a program, or of a whole picture.

    `low_ms`, `likely_ms` and `high_ms` are of a cool device that has run the program before; None where `reason` says
    why. `floor_ms`: the paper's FLOPs (its convention) over the sustained GFLOPS that it used, whatever the unit;
    an NPU may be faster. `sustained_ms` is likely on a warm device. `limited_by` and `ms_by_class` are of the likely.
    `unsure` are figures of the device table that are derived or unconfirmed.
    """

    device: str
    target: str
    program: str
    unit: UnitName
    precision: ComputePrecision
    method: Method
    floor_ms: float | None
    low_ms: float | None = None
    likely_ms: float | None = None
    high_ms: float | None = None
    sustained_ms: float | None = None
    first_run_ms: float | None = None
    reason: str = ""
    limited_by: Mapping[OpClass, Limit] = field(default_factory=dict)
    ms_by_class: Mapping[OpClass, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unsure: Mapping[str, Status] = field(default_factory=dict)
    kind: Literal["forecast"] = "forecast"

    def to_dict(self) -> dict[str, object]:
        """As JSON has it."""
        return asdict(self)


def forecast(
    work: ProgramWork,
    device: Device,
    *,
    unit: UnitName | None = None,
    precision: ComputePrecision | None = None,
    calibration: Calibration | None = None,
) -> Forecast:
    """Forecast one run of a program.

    `unit`: by default the one that the program's runtime uses; `precision`: as if its products computed in it, by
    default their own; `calibration`: by default the one in the device's file, if any. Raises DeviceError for a unit
    that is not there.
    """
    calibration = calibration or parse_calibration(device)
    ops = work.ops
    if precision is not None:
        ops = tuple(replace(op, precision=precision) if op.flops else op for op in ops)
    chosen = unit or default_unit(work)
    if unit is not None and unit not in device.units and calibration is None:
        there = ", ".join(device.units) or "none"
        raise DeviceError(f"no figures of a {unit} for {device.name}, only of: {there}", "choose another unit")
    base = Forecast(
        device=device.id,
        target=work.target,
        program=work.program,
        unit=chosen,
        precision=precision or main_precision(work),
        method="floor only",
        floor_ms=floor_ms(work, device),
        notes=(_FIRST_RUN,),
    )
    rates = calibration.find(work.target, unit=unit) if calibration else None
    if rates is not None:
        return _calibrated(replace(base, unit=rates.unit), work, ops, device, rates)
    if calibration is not None:
        base = replace(base, notes=(*base.notes, f"the calibration holds no measurement of {work.target}"))
    return _by_roofline(base, work, ops, device)


def forecast_picture(
    works: Mapping[str, ProgramWork],
    device: Device,
    *,
    steps: int,
    unguided_steps: int = 0,
    unit: UnitName | None = None,
    precision: ComputePrecision | None = None,
    calibration: Calibration | None = None,
) -> Forecast:
    """Forecast a picture: `steps` runs of `step`, `unguided_steps` of them without guidance, and one `decode`.

    `works` by program name. Where `step_unguided` was not counted apart, all steps count as guided ones.
    """

    def of(program: str) -> Forecast:
        return forecast(works[program], device, unit=unit, precision=precision, calibration=calibration)

    has_unguided = "step_unguided" in works
    apart = unguided_steps if has_unguided else 0
    parts = [(of("step"), steps - apart)]
    parts += [(of("step_unguided"), apart)] if apart else []
    parts += [(of("decode"), 1)] if "decode" in works else []
    step = parts[0][0]
    notes = list(step.notes)
    if unguided_steps and not has_unguided:
        notes.append("steps without guidance counted as guided ones: no work of theirs is known")
    if "decode" not in works:
        notes.append("without the decoder")
    classes: dict[OpClass, float] = defaultdict(float)
    for part, times in parts:
        for op_class, ms in part.ms_by_class.items():
            classes[op_class] += times * ms
    missing = next((part for part, _ in parts if part.likely_ms is None), None)

    def total(name: str) -> float | None:
        values = [(getattr(part, name), times) for part, times in parts]
        return None if any(value is None for value, _ in values) else sum(value * times for value, times in values)

    return replace(
        step,
        program="picture",
        method=step.method if missing is None else missing.method,
        reason="" if missing is None else missing.reason,
        ms_by_class=dict(classes),
        notes=tuple(notes),
        floor_ms=total("floor_ms"),
        low_ms=total("low_ms"),
        likely_ms=total("likely_ms"),
        high_ms=total("high_ms"),
        sustained_ms=total("sustained_ms"),
    )


def floor_ms(work: ProgramWork, device: Device) -> float | None:
    """The paper's floor of one run; None for a chip without its sustained figure."""
    sustained = device.paper_sustained_gflops
    return latency_floor_s(work.flops("paper"), sustained.value, passes=1) * 1e3 if sustained else None


def default_unit(work: ProgramWork) -> UnitName:
    """The unit that a program's runtime uses: Core ML's fp32 does not run on the Neural Engine."""
    if not ENGINES[work.target].picks_unit:
        return "cpu"
    return "gpu" if main_precision(work) == "fp32" else "npu"


def main_precision(work: ProgramWork) -> ComputePrecision:
    """What most of a program's products compute in; of a program without products, most of its numbers."""
    amounts: dict[ComputePrecision, int] = defaultdict(int)
    has_products = any(op.flops for op in work.ops)
    for op in work.ops:
        amounts[op.precision] += op.flops if has_products else op.elements
    return max(amounts, key=lambda precision: amounts[precision], default="fp32")


def _by_roofline(base: Forecast, work: ProgramWork, ops: tuple[OpWork, ...], device: Device) -> Forecast:
    engine = ENGINES[work.target]
    if engine.vendor not in (None, device.vendor):
        maker = engine.vendor.title()
        return replace(base, reason=f"{engine.title} programs run on {maker}'s devices, not on {device.name}")
    # the main precision first: what multiplies nothing is timed by its line
    precisions = dict.fromkeys((base.precision, *(op.precision for op in ops if op.flops)))
    speeds = {p: unit_speed(device, base.unit, p) for p in precisions}
    reason = next((speed for speed in speeds.values() if isinstance(speed, str)), "")
    if reason:
        return replace(base, reason=f"{reason}: {_FLOOR_ONLY}")
    known = {p: speed for p, speed in speeds.items() if isinstance(speed, UnitSpeed)}
    start = call_cost_ms(device, base.unit).scaled(max(1, work.num_delegates))
    totals: dict[Corner, float] = {}
    spent = _Spent()
    for corner in CORNERS:
        lines = {p: roofline(device, base.unit, speed, corner) for p, speed in known.items()}
        times = [(op, *lines.get(op.precision, lines[base.precision]).time_op(op)) for op in ops]
        totals[corner] = getattr(start, corner) + sum(ms for _, ms, _ in times)
        if corner == "value":
            for op, ms, limit in times:
                spent.add(op.op_class, limit, ms)
    warm, warm_note = sustained_share(device)
    speed_notes = (note for speed in known.values() for note in speed.notes)
    notes = dict.fromkeys((*base.notes, *speed_notes, warm_note, *_elsewhere(base.unit, work)))
    return replace(
        base,
        method="roofline",
        low_ms=totals["low"],
        likely_ms=totals["value"],
        high_ms=totals["high"],
        sustained_ms=totals["value"] / warm.value if warm else None,
        limited_by=spent.limits(),
        ms_by_class=spent.by_class(),
        notes=tuple(notes),
        unsure={
            place: figure.status
            for place, figure in device.figures()
            if figure.status in ("derived", "unconfirmed")
            and (place.startswith(f"units.{base.unit}.") or place == "memory_bandwidth_gbs")
        },
    )


def _calibrated(base: Forecast, work: ProgramWork, ops: tuple[OpWork, ...], device: Device, rates: Rates) -> Forecast:
    likely_ms, spent = rates.time(start_amounts(work)), _Spent()
    missing: dict[str, None] = {}
    for op in ops:
        amounts = op_amounts(op)
        missing |= dict.fromkeys(rates.unmeasured(amounts))
        for limit, ms in rates.split(amounts).items():
            likely_ms += ms
            spent.add(op.op_class, limit, ms)
    factor = rates.factor * (_UNMEASURED_FACTOR if missing else 1)
    warm, warm_note = sustained_share(device)
    share = rates.sustained_share or (warm.value if warm else None)
    fitted = count_of(rates.num_measurements, "measurement")
    return replace(
        base,
        method="calibrated",
        low_ms=likely_ms / factor,
        likely_ms=likely_ms,
        high_ms=likely_ms * factor,
        sustained_ms=likely_ms / share if share else None,
        first_run_ms=rates.first_load_ms_per_mb and rates.first_load_ms_per_mb * work.weight_bytes / 1e6 + likely_ms,
        limited_by=spent.limits(),
        ms_by_class=spent.by_class(),
        notes=(
            *(() if rates.first_load_ms_per_mb else base.notes),
            f"calibrated by {fitted} of {rates.label}, nine of ten within a factor of {rates.factor:.2f}",
            *((f"never measured there: {', '.join(missing)}",) if missing else ()),
            "warm: measured there" if rates.sustained_share else warm_note,
        ),
    )


def _elsewhere(unit: UnitName, work: ProgramWork) -> tuple[str, ...]:
    """A word on what a Core ML program holds that its rules keep off the Neural Engine."""
    if not ENGINES[work.target].picks_unit or unit != "npu":
        return ()
    types = Counter(op.op_type for op in work.ops if op.bytes_moved and "Neural Engine" not in op.backend)
    if not types:
        return ()
    named = ", ".join(f"{count} x {op_type}" for op_type, count in types.most_common())
    return (f"by rule not for the Neural Engine: {named}; what handing them over costs is not in the range",)


class _Spent:
    """Milliseconds by operator class and limit."""

    def __init__(self) -> None:
        self._ms: dict[OpClass, dict[Limit, float]] = defaultdict(lambda: defaultdict(float))

    def add(self, op_class: OpClass, limit: Limit, ms: float) -> None:
        self._ms[op_class][limit] += ms

    def by_class(self) -> dict[OpClass, float]:
        return {op_class: sum(limits.values()) for op_class, limits in self._ms.items()}

    def limits(self) -> dict[OpClass, Limit]:
        """What most of each class's time goes to."""
        return {c: max(limits, key=lambda limit: limits[limit]) for c, limits in self._ms.items()}
