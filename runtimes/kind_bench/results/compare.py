"""Two reports, or two files of results, held against each other: a guard for an app's CI."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from kind_bench.results.results import Results, parse_results
from kind_core.console import count_of
from kind_core.errors import ConfigError, ResultsError
from kind_core.files.json_files import read_json
from kind_runtimes.documents.reports.document import Host, ReportDocument
from kind_runtimes.documents.results import Machine
from kind_runtimes.manifest import find_misfit, load_schema, refuse_newer

Group = Literal["size", "flops", "memory", "latency", "parity"]
_Row = tuple[str, Group, str, object]  # name, group, unit and value of a figure
GROUPS: tuple[Group, ...] = ("size", "flops", "memory", "latency", "parity")
_EXPECTED = "give two report.json of bundles, or two files of kind-bench run -o"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A figure in both files; None where one does not have it."""

    name: str
    group: Group
    unit: str
    before: float | None
    after: float | None

    @property
    def relative(self) -> float | None:
        """The change as a part of what it was; infinite from 0."""
        if self.before is None or self.after is None:
            return None
        if self.before == 0:
            return 0.0 if self.after == 0 else math.inf
        return (self.after - self.before) / abs(self.before)

    @property
    def worsening(self) -> float:
        """How much worse it became, as a part; negative where it became better, infinite where it is gone."""
        if self.after is None:
            return math.inf
        change = self.relative
        if change is None:
            return 0.0  # there was none before
        return -change if self.group == "parity" else change


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What changed from one file to the other, and what should be known when reading it."""

    changes: tuple[Change, ...]
    notes: tuple[str, ...]

    def worse_than(self, limit: float) -> tuple[Change, ...]:
        """The changes for the worse beyond `limit`, a part of what it was."""
        return tuple(change for change in self.changes if change.worsening > limit)


def compare_files(before: Path, after: Path, groups: tuple[str, ...] = ()) -> Comparison:
    """Compare two files of one kind; `groups` limits it to some of GROUPS."""
    for group in groups:
        if group not in GROUPS:
            raise ConfigError(f"unknown group of figures {group!r}, expected one of {', '.join(GROUPS)}")
    old, new = _read(before), _read(after)
    if type(old) is not type(new):
        kinds = " and ".join("results" if isinstance(one, Results) else "a report" for one in (old, new))
        raise ResultsError(f"{before} and {after} are {kinds}, which have no figures in common", _EXPECTED)
    a, b = _read_figures(old), _read_figures(new)
    changes = []
    for name in dict.fromkeys([*a, *b]):
        group, unit, _ = a.get(name) or b[name]
        was, became = (one[name][2] if name in one else None for one in (a, b))
        changes.append(Change(name=name, group=group, unit=unit, before=was, after=became))
    kept = tuple(change for change in changes if not groups or change.group in groups)
    if not any(change.before is not None and change.after is not None for change in kept):
        raise ResultsError(f"{before} and {after} have no figures in common", _EXPECTED)
    return Comparison(changes=kept, notes=tuple(_list_notes(old, new)))


def parse_limit(text: str) -> float:
    """`5%` as 0.05; raises ConfigError unless it is a number of percent from 0."""
    try:
        limit = float(text.removesuffix("%")) / 100
    except ValueError:
        limit = math.nan
    if not 0 <= limit < math.inf:
        raise ConfigError(f"fail-over is {text!r}, expected a number of percent from 0", "--fail-over 5%")
    return limit


def _read(file: Path) -> Results | ReportDocument:
    try:
        data = read_json(file, is_strict=True)
    except FileNotFoundError:
        raise ResultsError(f"there is no file {file}", _EXPECTED) from None
    except (OSError, ValueError) as error:
        raise ResultsError(f"{file} cannot be read as JSON: {error}", _EXPECTED) from error
    if not isinstance(data, dict) or ("model" not in data and "cases" not in data):
        raise ResultsError(f"{file} is neither a report nor measured results", _EXPECTED)
    if "cases" in data:
        return parse_results(data, str(file))
    refuse_newer(data, load_schema("report")["properties"]["format_version"]["const"], str(file), ResultsError)
    if misfit := find_misfit(data, "report"):
        raise ResultsError(f"{file}: {misfit}", "export the bundle again")
    return cast(ReportDocument, data)


def _read_figures(data: Results | ReportDocument) -> dict[str, tuple[Group, str, float]]:
    """Group, unit and value of each figure that is there, by name. More is worse, but for parity, where less is."""
    figures = {}
    for name, group, unit, value in _results_figures(data) if isinstance(data, Results) else _report_figures(data):
        if value is not None and not isinstance(value, int | float):
            raise ResultsError(f"{name} is {value!r}, expected a number", "export the bundle again")
        if value is not None:
            figures[name] = group, unit, float(value)
    return figures


def _report_figures(report: ReportDocument) -> Iterator[_Row]:
    model = report["model"]
    yield "numbers stored in step", "size", "", model["parameters"]["stored_in_step"]
    yield "FLOPs of a step", "flops", "", model["flops_per_step_executed"]
    for name, target in report["targets"].items():
        measured = target["measured"]
        yield f"{name} size", "size", "bytes", target["size_bytes"]
        yield f"{name} parity of the trajectory", "parity", "dB", target["parity"]["trajectory_psnr_db"]
        yield f"{name} parity of a step", "parity", "dB", target["parity"]["step_psnr_db"]
        yield f"{name} step, measured", "latency", "ms", measured and measured["step_ms"]
        yield f"{name} picture, measured", "latency", "ms", measured and measured["image_ms"]
        yield f"{name} load, measured", "latency", "ms", measured and measured["load_ms"]
        for program, work in report["work"].get(name, {}).items():  # what is code has no counted work
            yield f"{name} {program} FLOPs", "flops", "", work["flops"]["full"]
            yield f"{name} {program} weights", "size", "bytes", work["weight_bytes"]
            yield f"{name} {program} peak activations", "memory", "bytes", work["peak_activation_bytes"]
            yield f"{name} {program} bytes moved", "memory", "bytes", work["bytes_moved"]


def _results_figures(results: Results) -> Iterator[_Row]:
    for case in results.cases:
        unguided, decode = case.step_unguided, case.decode
        yield f"{case.name}: step", "latency", "ms", case.step.median
        yield f"{case.name}: step without guidance", "latency", "ms", unguided.median if unguided else None
        yield f"{case.name}: decode", "latency", "ms", decode.median if decode else None
        yield f"{case.name}: picture", "latency", "ms", case.image_ms
        load = case.data.get("load_ms")
        yield f"{case.name}: first load", "latency", "ms", load and load["first"]
        yield f"{case.name}: first picture", "latency", "ms", case.data.get("first_picture_ms")
        yield f"{case.name}: to ship", "size", "bytes", case.data.get("download_bytes")
        yield f"{case.name}: peak memory", "memory", "bytes", case.data.get("peak_memory_bytes")


def _list_notes(old: Results | ReportDocument, new: Results | ReportDocument) -> Iterator[str]:
    """What makes the two files less alike than their figures look."""
    if isinstance(old, Results) and isinstance(new, Results):
        if old.manifest_sha256 != new.manifest_sha256:
            yield (
                f"different models: {old.bundle_name} ({old.manifest_sha256[:12]}...) and "
                f"{new.bundle_name} ({new.manifest_sha256[:12]}...)"
            )
        yield from _differing_machines(old.machine, new.machine)
        for which, one in (("first", old), ("second", new)):
            if one.partial:
                yield f"the {which} file is partial: measuring was interrupted"
        return
    assert not isinstance(old, Results)
    assert not isinstance(new, Results)
    checkpoints = [one["source"]["checkpoint_sha256"][:12] for one in (old, new)]
    classes = [", ".join(c["names"][0] for c in one["classes"]) for one in (old, new)]
    sampling = (one["sampling"] for one in (old, new))
    samplings = [f"{one['sampler']} with {count_of(one['steps'], 'step')}" for one in sampling]
    for what, (a, b) in (("models: checkpoint", checkpoints), ("classes:", classes), ("sampling:", samplings)):
        if a != b:
            yield f"different {what} {a} and {b}"
    for name in sorted(set(old["targets"]) & set(new["targets"])):
        a, b = (one["targets"][name]["precision"] for one in (old, new))
        if a != b:
            yield f"different precisions of {name}: {a} and {b}"
    yield from _differing_machines(old["host"], new["host"])


def _differing_machines(old: Machine | Host, new: Machine | Host) -> Iterator[str]:
    a, b = (f"{one['processor']} under {one['system']}" for one in (old, new))
    if a != b:
        yield f"measured on different machines: {a}, and {b}"
