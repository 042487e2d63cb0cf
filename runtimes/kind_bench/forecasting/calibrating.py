"""A device's own rates from results that were measured on it: `kind-bench calibrate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kind_bench.counting import count_bundle
from kind_bench.forecasting.calibration import CALIBRATED, Calibration, write_calibrated
from kind_bench.forecasting.devices import load_device
from kind_bench.forecasting.measurements import fit, measured_device
from kind_bench.results.importing import check_model
from kind_bench.results.results import read_results
from kind_core.errors import ResultsError
from kind_core.files.hashing import hash_file
from kind_core.files.staging import check_output
from kind_runtimes.bundle import MANIFEST_NAME, open_bundle


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
