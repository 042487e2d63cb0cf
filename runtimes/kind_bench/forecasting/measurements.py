"""A device's own rates from results that were measured on it: `kind-bench calibrate`."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kind_bench.counting import count_bundle
from kind_bench.counting.work import ProgramWork
from kind_bench.forecasting.calibration import (
    CALIBRATED,
    BundleWorks,
    Calibration,
    Measurement,
    fit_measurements,
    write_calibrated,
)
from kind_bench.forecasting.devices import Device, load_device
from kind_bench.results.importing import check_model
from kind_bench.results.results import read_results
from kind_core.errors import DeviceError, ResultsError
from kind_core.files.hashing import hash_file
from kind_core.files.staging import check_output
from kind_runtimes.bundle import MANIFEST_NAME, open_bundle
from kind_runtimes.documents.case import CaseEntry, SpreadEntry
from kind_runtimes.documents.results import ResultsDocument


def calibrate_device(
    files: Sequence[Path], bundles: Sequence[Path], device: str | None, output: Path, *, force: bool = False
) -> Calibration:
    """Fit and write a device file; `device` names what it is, where the results do not."""
    check_output(output, CALIBRATED, force=force)
    opened = {hash_file(folder / MANIFEST_NAME): open_bundle(folder) for folder in bundles}
    results = [read_results(file) for file in files]
    for one, file in zip(results, files, strict=True):
        check_model(one, opened.get(one.manifest_sha256, next(iter(opened.values()))), str(file))
    machines = list(dict.fromkeys(one.machine["processor"] for one in results))
    if len(machines) > 1:
        raise ResultsError(f"the results are of {len(machines)} devices: {', '.join(machines)}", "calibrate each alone")
    chosen = measured_device(results[0].data) if device is None else load_device(device)
    needed = {one.manifest_sha256 for one in results}
    works = {sha256: count_bundle(bundle) for sha256, bundle in opened.items() if sha256 in needed}
    calibration = fit([one.data for one in results], works)
    write_calibrated(chosen, calibration, output, force=force)
    return calibration


def fit(results: Sequence[ResultsDocument], works: Mapping[str, BundleWorks]) -> Calibration:
    """Fit rates to results files of one device; `works` of their bundles, by the hash of the manifest.

    Raises DeviceError where a file holds something else than measurements, or is of a bundle that was not given.
    """
    measurements, names = [], []
    for one in results:
        if one.get("kind") != "measured":
            raise DeviceError(
                f"cannot calibrate with a {one.get('kind')!r}, expected 'measured'", "use what kind-bench run wrote"
            )
        name, sha256 = one["bundle"]["name"], one["bundle"]["manifest_sha256"]
        if sha256 not in works:
            raise DeviceError(
                f"the results are of bundle {name!r} with manifest {sha256[:12]}, which was not given",
                "give that bundle, or measure the one you have",
            )
        names.append(name)
        measurements += read_measurements(one, works[sha256])
    return replace(fit_measurements(measurements), bundles=tuple(dict.fromkeys(names)))


def read_measurements(results: ResultsDocument, works: BundleWorks) -> list[Measurement]:
    """The measurements of a results file whose bundle's works are given."""
    measurements = []
    for case in results["cases"]:
        programs = works.get(case["runtime"], {})
        unguided, decode = case.get("step_unguided_ms"), case.get("decode_ms")
        spreads = {"step": case["step_ms"], "step_unguided": unguided, "decode": decode}
        for program, spread in spreads.items():
            if spread is not None and program in programs:
                is_step = program == "step"
                measurements.append(
                    Measurement(
                        work=programs[program],
                        ms=_median(spread),
                        threads=case.get("threads"),
                        provider=case.get("provider"),
                        first_load_ms_per_mb=_load_per_mb(case, programs.values()) if is_step else None,
                        warm_ms=_median(case["sustained"]["step_ms"]) if is_step and "sustained" in case else None,
                    )
                )
    return measurements


def measured_device(results: ResultsDocument) -> Device:
    """The device that results were taken on: of the table where the file names it, otherwise a new one."""
    machine = results["machine"]
    if machine.get("device"):
        return load_device(machine["device"])
    is_phone = machine["system"].casefold().startswith(("ios", "ipados", "android"))
    name = machine.get("model") or machine["processor"]
    return Device(id="measured", name=name, vendor="unknown", form="phone" if is_phone else "computer")


def _median(spread: SpreadEntry) -> float:
    return float(statistics.median(spread["samples"]))


def _load_per_mb(case: CaseEntry, programs: Iterable[ProgramWork]) -> float | None:
    if "load_ms" not in case:
        return None
    return float(case["load_ms"]["first"]) / (sum(work.weight_bytes for work in programs) / 1e6)
