"""Results as text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from kind_bench.results.compare import Change, Comparison
from kind_bench.results.results import Case, Results, Spread
from kind_core.console import clean, join_lines
from kind_runtimes.documents.case import ProfileEntry
from kind_runtimes.documents.results import Machine, UnitEntry

_MAX_OPS = 8


def format_results(results: Results) -> str:
    """A block a case, with the machine on top."""
    machine = results.machine
    marked = " (partial: it was cut short)" if results.partial else ""
    lines = [
        f"measured  {results.bundle_name} by {results.data['made_by']}{marked}",
        f"machine   {machine['processor']}, {machine['system']}{_describe_state(machine)}",
    ]
    for case in results.cases:
        lines += ["", f"{case.name}  ({case.engine}{f', {case.precision}' if case.precision else ''})"]
        lines += [f"  {label:<8}  {text}" for label, text in _describe_case(case)]
        lines += _describe_profile(case.data.get("profile"))
    if results.units:
        lines += ["", "compute units, held against the eager model"]
        lines += [f"  {line}" for line in align_columns(map(_describe_unit, results.units)).split("\n")]
    return join_lines(lines)


def _describe_unit(unit: UnitEntry) -> tuple[str, ...]:
    db, load = unit.get("psnr_db"), unit.get("first_load_ms")
    return (
        f"{unit['name']} ({unit['kind'].upper()})",
        "" if db is None else f"{db:.1f} dB",
        "" if load is None else f"{format_ms(load)} first load",
        "draws" if unit["is_taken"] else "refused",
        unit.get("reason") or "",
    )


def format_comparison(comparison: Comparison, worse: Sequence[Change]) -> str:
    """The notes and a row a figure; those that are too much worse are marked."""
    rows = [("", "before", "after", "change", "")]
    for change in comparison.changes:
        before, after = (_format_figure(value, change.unit) for value in (change.before, change.after))
        rows.append((change.name, before, after, _format_change(change), "worse" if change in worse else ""))
    lines = [line.rstrip() for line in align_columns(rows).split("\n")]
    return join_lines([*(f"note: {note}" for note in comparison.notes), *lines])


def describe_comparison(comparison: Comparison, worse: Sequence[Change]) -> dict[str, object]:
    """The same for programs. `relative` is null where a figure is missing or was 0."""
    return {
        "notes": list(comparison.notes),
        "changes": [
            asdict(change) | {"relative": _finite(change.relative), "failed": change in worse}
            for change in comparison.changes
        ],
    }


def align_columns(rows: Iterable[Sequence[str]]) -> str:
    """Rows as lines, the first column to the left and the others to the right."""
    held = [tuple(map(clean, row)) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*held, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in held
    )


def _describe_state(machine: Machine) -> str:
    words = {
        "num_cpus": "{} CPUs",
        "governor": "governor {}",
        "load_before": "load before {}",
        "thermal_state": "thermal state {}",
    }
    known = {name: value for name in words if (value := machine.get(name)) is not None}
    return "".join(f", {words[name].format(value)}" for name, value in known.items())


def _describe_case(case: Case) -> list[tuple[str, str]]:
    lines = [("step", _describe_spread(case.step))]
    if case.step_unguided is not None:
        lines.append(("unguided", _describe_spread(case.step_unguided)))
    if sustained := case.data.get("sustained"):
        step = Spread(samples=tuple(sustained["step_ms"]["samples"]))
        lines.append(("warm", f"a step {_describe_spread(step)}, after {sustained['after_s']:g} s of work"))
    if case.decode is not None:
        lines.append(("decode", _describe_spread(case.decode)))
    if case.image_ms is not None:
        whole = case.data.get("whole_image_ms")
        in_one_go = f", {format_ms(whole['median'])} in one go" if whole else ""
        lines.append(("picture", format_ms(case.image_ms) + in_one_go))
    if first := case.data.get("first_picture_ms"):
        lines.append(("first", f"{format_ms(first)} from opening to the first picture, nothing warm"))
    if load := case.data.get("load_ms"):
        again = f", again {format_ms(load['again'])}" if "again" in load else ""
        cache = load.get("file_cache", "unknown")
        lines.append(("load", f"{format_ms(load['first'])} first, file cache {cache}{again}"))
    if (size := case.data.get("download_bytes")) is not None:
        lines.append(("to ship", f"{_format_mb(size)} of programs"))
    if (peak := case.data.get("peak_memory_bytes")) is not None:
        baseline = case.data.get("baseline_memory_bytes")
        own = "" if baseline is None else f", {_format_mb(max(0, peak - baseline))} above the runtime alone"
        lines.append(("memory", f"{_format_mb(peak)} at most{own}"))
    return lines


def _describe_spread(spread: Spread) -> str:
    count, (q1, q3) = len(spread.samples), spread.quartiles
    if count < 4:
        return f"{format_ms(spread.median)}, of {count}"
    ends = f"{format_ms(min(spread.samples))} to {format_ms(max(spread.samples))}"
    return f"{format_ms(spread.median)}, half of {count} within {format_ms(q1)} to {format_ms(q3)}, all within {ends}"


def _describe_profile(profile: ProfileEntry | None) -> list[str]:
    if profile is None:
        return []
    share = profile.get("delegate_share")
    part = "" if share is None else f", {share:.1%} inside the accelerated backend"
    rows = [(op["op_type"], op["backend"], f"x{op['count']}", format_ms(op.get("ms"))) for op in profile["ops"]]
    lines = align_columns(rows[:_MAX_OPS]).split("\n")
    if len(rows) > _MAX_OPS:
        rest_ms = sum(op.get("ms") or 0 for op in profile["ops"][_MAX_OPS:])
        lines.append(f"and {len(rows) - _MAX_OPS} more, {format_ms(rest_ms)} together")
    return [f"  profile   by {profile['tool']}{part}", *(f"    {line}" for line in lines)]


def format_ms(ms: float | None) -> str:
    """Three digits and a unit."""
    if ms is None:
        return "unknown"
    if ms >= 1000:
        return f"{ms / 1000:.3g} s" if ms < 1e6 else f"{ms / 1000:.0f} s"
    return f"{ms:.3g} ms"


def _format_mb(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _format_figure(value: float | None, unit: str) -> str:
    if value is None:
        return "none"
    match unit:
        case "ms":
            return format_ms(value)
        case "bytes":
            return f"{value / 1e6:.3f} MB"
        case "dB":
            return f"{value:.2f} dB"
    return f"{value:,.0f}"


def _format_change(change: Change) -> str:
    relative = _finite(change.relative)
    if relative is not None:
        return f"{relative:+.1%}" if relative else "same"
    return "new" if change.before is None else "gone" if change.after is None else "from 0"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
