"""Results that were measured elsewhere, taken into the bundle: `<bundle>/measured/`, which no hash covers."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Literal

from kind_bench.results.results import Results, Spread, combine_image_ms, parse_results, read_results, write_results
from kind_core.errors import ResultsError
from kind_core.files.hashing import hash_file
from kind_core.files.litter import is_hidden
from kind_runtimes.bundle import MANIFEST_NAME, Bundle, count_download, list_program_files, open_bundle
from kind_runtimes.documents.case import SpreadEntry
from kind_runtimes.documents.results import ResultsDocument
from kind_runtimes.manifest import MEASURED_FOLDER, Manifest

_SPREADS: tuple[Literal["step_ms", "step_unguided_ms", "decode_ms", "whole_image_ms"], ...] = (
    "step_ms",
    "step_unguided_ms",
    "decode_ms",
    "whole_image_ms",
)
_TOLERANCE = 0.01  # of a median that an app wrote itself
_OTHER_MODEL = "give the bundle that was measured, or measure this one"


def import_results(file: Path, folder: Path) -> tuple[Results, Path]:
    """Check a results file against the bundle, fill in what follows from it, and keep it in the bundle.

    The place is named after machine and content, so importing a file twice changes nothing.
    """
    results, bundle = read_results(file), open_bundle(folder)
    check_model(results, bundle, str(file))
    if not results.cases and not results.units:
        raise ResultsError(f"{file} holds no case: nothing was measured", "measure again")
    completed = parse_results(_complete(results, bundle.manifest, str(file)), str(file))
    return completed, _keep(completed, folder)


def read_measured(bundle: Bundle) -> tuple[Results, ...]:
    """All results kept in a bundle, in the order of their names."""
    files = sorted(file for file in (bundle.path / MEASURED_FOLDER).glob("*.json") if not is_hidden(file.name))
    found = tuple(read_results(file) for file in files)
    for results, file in zip(found, files, strict=True):
        check_model(results, bundle, str(file))
    return found


def check_model(results: Results, bundle: Bundle, where: str) -> None:
    """Raise ResultsError unless `results` were measured with exactly this bundle."""
    held = hash_file(bundle.path / MANIFEST_NAME)
    if results.manifest_sha256 != held:
        said = f"{results.bundle_name} with manifest sha256 {results.manifest_sha256[:12]}..."
        raise ResultsError(
            f"{where} was measured with another model: {said}, {bundle.path} has {held[:12]}...", _OTHER_MODEL
        )
    for name, sha256 in results.data["bundle"].get("files", {}).items():
        expected = bundle.manifest.files.get(name)
        if sha256 != expected:
            said = "has no such file" if expected is None else f"has {expected[:12]}..."
            raise ResultsError(
                f"{where} measured {name} with sha256 {sha256[:12]}..., {bundle.path} {said}", _OTHER_MODEL
            )
    for runtime in [*(case.runtime for case in results.cases), *(unit["runtime"] for unit in results.units)]:
        if runtime not in bundle.manifest.targets:
            said = f"holds only {', '.join(bundle.manifest.targets)}"
            raise ResultsError(f"{where} measured {runtime}, {bundle.path} {said}", _OTHER_MODEL)
    for case in results.cases:
        precision = bundle.manifest.targets[case.runtime].precision
        if case.precision not in ("", precision):
            said = f"{case.runtime} in {case.precision}, in {bundle.path} it is {precision}"
            raise ResultsError(f"{where} measured {said}", _OTHER_MODEL)


def _complete(results: Results, manifest: Manifest, where: str) -> ResultsDocument:
    data: ResultsDocument = json.loads(json.dumps(results.data))
    files = {name for case in results.cases for name in list_program_files(manifest, case.runtime)}
    data["bundle"]["files"] = {name: manifest.files[name] for name in sorted(files)}
    data.setdefault("partial", False)
    guided = manifest.sampling.guided
    for entry, case in zip(data["cases"], results.cases, strict=True):
        entry["precision"] = manifest.targets[case.runtime].precision
        entry["download_bytes"] = count_download(manifest, case.runtime)
        for name in _SPREADS:
            if name in entry:
                entry[name] = _complete_spread(entry[name], f"{where}: {case.name}, {name}")
        if "sustained" in entry:
            spread = entry["sustained"]["step_ms"]
            entry["sustained"]["step_ms"] = _complete_spread(spread, f"{where}: {case.name}, sustained")
        has_decode = "decode" in manifest.targets[case.runtime].programs
        image_ms = combine_image_ms(case.step, case.step_unguided, case.decode, guided, has_decode=has_decode)
        if image_ms is not None:
            entry.setdefault("image_ms", image_ms)
    return data


def _complete_spread(entry: SpreadEntry, where: str) -> SpreadEntry:
    spread = Spread(samples=tuple(entry["samples"]))
    said = entry.get("median", spread.median)
    if not math.isclose(said, spread.median, rel_tol=_TOLERANCE):
        raise ResultsError(
            f"{where} says its median is {said:g} ms, its samples have {spread.median:g}",
            "write milliseconds, and samples alone if in doubt",
        )
    return entry | spread.to_dict()


def _keep(results: Results, folder: Path) -> Path:
    content = json.dumps(results.data, sort_keys=True).encode()
    machine = results.machine
    words = str(machine.get("device") or machine.get("model") or machine["processor"]).lower()
    slug = re.sub(r"[^a-z0-9]+", "-", words).strip("-") or "machine"
    file = folder / MEASURED_FOLDER / f"{slug[:40]}-{hashlib.sha256(content).hexdigest()[:8]}.json"
    write_results(results, file, force=True)
    return file
