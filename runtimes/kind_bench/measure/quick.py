"""A first measurement on this host at the end of an export, in its own process; `kind-bench run` measures with care."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from kind_bench.measure.cases import describe_document
from kind_bench.measure.gathering import Gathering
from kind_bench.measure.machine import describe_machine
from kind_bench.measure.timing import Counts, measure_loop
from kind_bench.results.results import Case, parse_results, write_results
from kind_runtimes.bundle import Bundle
from kind_runtimes.documents.reports.targets import MeasuredHere
from kind_runtimes.engines.runtime import DEFAULT_OPTIONS, can_unround
from kind_runtimes.generator import open_generator

_COUNTS = Counts(warmup=3, repeat=15)


def time_bundle(bundle: Bundle, file: Path, profiles: Mapping[str, object] | None = None) -> dict[str, MeasuredHere]:
    """Time every target that really runs here and write the results to `file`, with `profiles` of delegation by target.

    An evaluated program is not timed.
    """
    machine = describe_machine()
    gathered = [one for name in bundle.manifest.targets if (one := _time_target(bundle, name)) is not None]
    document = {
        **describe_document(bundle, [one.runtime for one in gathered]),
        "partial": False,
        "machine": machine,
        "cases": [one.to_case(bundle.manifest) for one in gathered],
        "delegation": {name: profile for name, profile in (profiles or {}).items() if profile},
    }
    results = parse_results(document, file.name)
    write_results(results, file, force=True)
    return {case.runtime: _summarise(case) for case in results.cases}


def _time_target(bundle: Bundle, name: str) -> Gathering | None:
    start = time.perf_counter()
    generator = open_generator(bundle.path, bundle.manifest, name)
    load_ms = (time.perf_counter() - start) * 1e3
    if can_unround(generator.step):
        return None
    gathering = Gathering(
        runtime=name,
        options=DEFAULT_OPTIONS,
        counts=_COUNTS,
        engine=generator.step.engine,
        process="shared",
        rounds=1,
        first_loads_ms=[load_ms],
    )
    measure_loop(generator, _COUNTS, gathering.add_samples)
    return gathering


def _summarise(case: Case) -> MeasuredHere:
    step, data = case.data["step_ms"], case.data
    return {
        "runtime": case.runtime,
        "engine": case.engine,
        "step_ms": step["median"],
        "step_min_ms": step["min"],
        "step_max_ms": step["max"],
        "image_ms": data["image_ms"],
        "load_ms": data["load_ms"]["first"],
        "repeats": len(step["samples"]),
    }
