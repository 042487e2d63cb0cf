"""Measured results, `schemas/results.schema.json`: what `kind-bench run` and the apps on phones write."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from kind_core.console import count_of
from kind_core.errors import ResultsError
from kind_core.files.json_files import read_json
from kind_core.files.staging import file_kind, staged
from kind_runtimes.documents.case import CaseEntry, SpreadEntry
from kind_runtimes.documents.results import Machine, ResultsDocument, UnitEntry
from kind_runtimes.manifest import find_misfit, refuse_newer

RESULTS_VERSION: Final = 1
_AGAIN = "measure again, or write it as schemas/results.schema.json says"


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Samples in milliseconds, in the order of measuring; never empty."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third, linearly interpolated."""
        if len(self.samples) == 1:
            return self.samples[0], self.samples[0]
        first, _, third = statistics.quantiles(self.samples, n=4, method="inclusive")
        return first, third

    def to_dict(self) -> SpreadEntry:
        """As a results file holds it, to the microsecond or finer."""
        q1, q3 = self.quartiles
        figures = {"median": self.median, "q1": q1, "q3": q3, "min": min(self.samples), "max": max(self.samples)}
        rounded = {name: round_ms(ms) for name, ms in figures.items()}
        return cast(SpreadEntry, {**rounded, "samples": [round_ms(ms) for ms in self.samples]})


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One way of running a bundle. `data` is the whole entry of the file, where memory, load times and profile are."""

    runtime: str
    engine: str
    precision: str
    threads: int | None
    provider: str | None
    step: Spread
    step_unguided: Spread | None
    decode: Spread | None
    image_ms: float | None
    data: CaseEntry

    @property
    def name(self) -> str:
        """In words, as tables show it: `onnx, 2 threads, CPU`."""
        return name_case(self.runtime, self.threads, self.provider)


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """What was measured of one bundle on one machine. `data` is the whole document.

    `units`: the compute units of the device as the document has them, each held against the golden trajectory.
    """

    bundle_name: str
    manifest_sha256: str
    machine: Machine
    partial: bool
    cases: tuple[Case, ...]
    data: ResultsDocument

    @property
    def units(self) -> tuple[UnitEntry, ...]:
        return tuple(self.data.get("units", ()))


def name_case(runtime: str, threads: int | None, provider: str | None) -> str:
    """A case in words."""
    parts = [runtime, provider or "", "" if threads is None else count_of(threads, "thread")]
    return ", ".join(part for part in parts if part)


def read_results(file: Path) -> Results:
    """Read and check a results file; raises ResultsError naming what is wrong with it."""
    try:
        data = read_json(file, is_strict=True)
    except FileNotFoundError:
        raise ResultsError(f"there is no results file {file}", "measure with kind-bench run -o") from None
    except (OSError, ValueError) as error:
        raise ResultsError(f"{file} cannot be read as JSON: {error}", _AGAIN) from error
    return parse_results(data, str(file))


def parse_results(data: object, where: str) -> Results:
    """Check a results document against its schema and parse it; raises ResultsError naming the field."""
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(data, dict) or kind != "measured":
        said = f"its kind is {kind!r}" if kind else "it has no kind"
        raise ResultsError(f"{where} holds no measured results: {said}, expected 'measured'", _AGAIN)
    refuse_newer(data, RESULTS_VERSION, where, ResultsError)
    misfit = find_misfit(data, "results")
    if misfit is not None:
        raise ResultsError(f"{where}: {misfit}", _AGAIN)
    document = cast(ResultsDocument, data)
    return Results(
        bundle_name=document["bundle"]["name"],
        manifest_sha256=document["bundle"]["manifest_sha256"],
        machine=document["machine"],
        partial=document.get("partial", False),
        cases=tuple(_parse_case(case) for case in document["cases"]),
        data=document,
    )


RESULTS = file_kind("a results file", read_results)


def write_results(results: Results, file: Path, *, force: bool = False) -> None:
    """Write the whole document."""
    text = json.dumps(results.data, indent=2, ensure_ascii=False) + "\n"
    with staged(file, RESULTS, force=force) as path:
        path.write_text(text, encoding="utf-8")


def combine_image_ms(
    step: Spread, unguided: Spread | None, decode: Spread | None, guided: Sequence[bool], *, has_decode: bool
) -> float | None:
    """Milliseconds of one picture from the medians of its parts, None where one is missing; `guided`: of each step."""
    if (unguided is None and len(set(guided)) > 1) or (decode is None and has_decode):
        return None
    without = step if unguided is None else unguided
    total = sum(step.median if one else without.median for one in guided)
    return round_ms(total + (0.0 if decode is None else decode.median))


def round_ms(ms: float) -> float:
    """To four decimals and no less than five digits: a sample must not become 0."""
    return round(ms, 4) if ms >= 1 else float(f"{ms:.5g}")


def _parse_case(data: CaseEntry) -> Case:
    return Case(
        runtime=data["runtime"],
        engine=data["engine"],
        precision=data.get("precision", ""),
        threads=data.get("threads"),
        provider=data.get("provider"),
        step=Spread(samples=tuple(data["step_ms"]["samples"])),
        step_unguided=_parse_spread(data.get("step_unguided_ms")),
        decode=_parse_spread(data.get("decode_ms")),
        image_ms=data.get("image_ms"),
        data=data,
    )


def _parse_spread(data: SpreadEntry | None) -> Spread | None:
    return None if data is None else Spread(samples=tuple(data["samples"]))
