"""report.json and report.html: what is in the bundle, how big, how much work, how fast here, how close to the model.

The page is made from report.json and preview.png alone, see `page`. What is forecast and what was measured
elsewhere may come later: `refresh_report`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, cast

from jinja2 import TemplateError

from kind_bench.counting import count_bundle
from kind_bench.forecasting.devices import Device, load_device
from kind_bench.lint import Profile
from kind_bench.results.importing import read_measured
from kind_bench.results.results import Results
from kind_core.checkpoint import Checkpoint
from kind_core.errors import BundleError
from kind_core.files.json_files import read_json
from kind_core.files.staging import PART, claimed, staged
from kind_export.compact.model import CompactModel
from kind_export.report.forecasts import DEFAULT_DEVICES, describe_forecasts
from kind_export.report.model import describe_model, passes_per_step
from kind_export.report.page import render_page
from kind_export.report.work import Works, describe_works
from kind_export.verify.parity import Parity
from kind_runtimes.bundle import BUNDLE, open_bundle
from kind_runtimes.documents.reports.document import (
    Host,
    MeasuredElsewhere,
    MeasuredMachine,
    PlanEntry,
    ReportDocument,
    Rewrites,
)
from kind_runtimes.documents.reports.targets import Delegation, MeasuredHere, ReportProgram, ReportTarget
from kind_runtimes.kits import KITS
from kind_runtimes.manifest import Manifest, check_schema

REPORT_VERSION: Final = 2
_ALL_STEPS: list[float] = [0, 1]
REPORT_NAME = "report.json"
_HOST = ("system", "processor", "num_cpus", "load_before")


def write_report(
    folder: Path,
    manifest: Manifest,
    checkpoint: Checkpoint,
    compact: CompactModel,
    parities: dict[str, Parity],
    timings: dict[str, MeasuredHere],
    *,
    works: Works,
    devices: Sequence[Device],
    plan: PlanEntry | None = None,
) -> None:
    """Write both reports into the bundle folder."""
    measured = json.loads((folder / "measured.json").read_text(encoding="utf-8"))
    profiles, sampling = measured.get("delegation", {}), manifest.sampling
    document: ReportDocument = {
        "format_version": REPORT_VERSION,
        "name": manifest.data["name"],
        "classes": manifest.data["classes"],
        "latents_shape": list(manifest.latents_shape),
        "sampling": {
            "sampler": sampling.sampler,
            "steps": sampling.steps,
            "guidance_scale": sampling.guidance_scale,
            "passes_per_step": passes_per_step(takes_guidance=sampling.takes_guidance),
            "initial_noise_scale": sampling.initial_noise_scale,
            "guided_steps": [index for index, is_on in enumerate(sampling.guided) if is_on],
            "guidance_interval": manifest.data.get("guidance_interval", _ALL_STEPS),
            "distillation": manifest.data.get("distillation"),
            "is_approximate": manifest.is_approximate,
        },
        "packs": [
            {"name": pack.info.name, "file": pack.file, "size_bytes": pack.size_bytes} for pack in manifest.packs
        ],
        "model": describe_model(checkpoint.config.dit, compact),
        "rewrites": cast(Rewrites, manifest.data["rewrites"]),
        "targets": {
            name: _describe_target(manifest, name, parities[name], timings.get(name), profiles.get(name))
            for name in manifest.targets
        },
        "work": describe_works(works, _step_profiles(profiles)),
        "measured_elsewhere": [],
        "host": cast(Host, {key: measured["machine"].get(key) for key in _HOST}),
        "source": manifest.data["source"],
        "tools": manifest.data["tools"],
        "forecasts": describe_forecasts(works, manifest, devices),
        "plan": plan,
    }
    _write(folder, document)


def refresh_report(path: Path, devices: Sequence[Device]) -> ReportDocument:
    """Forecast for `devices`, and take in what was measured elsewhere since: both reports of a bundle, written anew.

    The programs are counted again and nothing is run. Returns the new report; raises BundleError where the bundle or
    its report is broken or of another format.
    """
    bundle = open_bundle(path)
    with claimed(path, BUNDLE):
        data = _read(path / REPORT_NAME)
        measured = [_describe_measured(one) for one in read_measured(bundle)]
        data["forecasts"] = describe_forecasts(count_bundle(bundle), bundle.manifest, devices)
        data["measured_elsewhere"] = measured
        try:
            _write(path, data)
        except (TemplateError, LookupError, TypeError, AttributeError, ArithmeticError, ValueError) as error:
            # no hash holds a report, and its schema says less than its page shows
            reason = " ".join(str(error).split())
            raise BundleError(f"{path / REPORT_NAME} cannot be shown: {reason}", "export the bundle again") from error
        return data


def choose_devices(names: Sequence[str]) -> list[Device]:
    """The devices by name or file, or those that are forecast where none was named."""
    return [load_device(name) for name in names or DEFAULT_DEVICES]


def _read(file: Path) -> ReportDocument:
    try:
        data = read_json(file, is_strict=True)
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot read {file}: {error}", "export the bundle again") from error
    version = data.get("format_version") if isinstance(data, dict) else None
    if version != REPORT_VERSION:
        raise BundleError(
            f"{file} has format_version {version}, this program writes {REPORT_VERSION}",
            "upgrade kind-diffusion" if isinstance(version, int) and version > REPORT_VERSION else "export again",
        )
    check_schema(data, "report", str(file))
    return cast(ReportDocument, data)


def _write(folder: Path, data: ReportDocument) -> None:
    check_schema(data, "report", REPORT_NAME)
    preview = folder / "preview.png"
    kits = [kit for kit in KITS if (folder / kit / "README.md").is_file()]
    page = render_page(data, preview.read_bytes() if preview.exists() else None, kits)
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    for name, content in ((REPORT_NAME, text), ("report.html", page)):
        with staged(folder / name, PART, force=True) as partial:
            partial.write_text(content, encoding="utf-8")


def _step_profiles(profiles: Mapping[str, Delegation]) -> dict[str, Profile]:
    """The traces of guided steps as the lint takes them."""
    return {
        name: {
            "run_ms": one["run_ms"],
            "ops": [
                {"op_type": "DELEGATE_CALL", "backend": "XNNPACK", "ms": one["delegate_share"] * one["run_ms"]},
                *({"op_type": op, "backend": "portable", "ms": ms} for op, ms in one["portable_ms"].items()),
            ],
        }
        for name, one in profiles.items()
    }


def _describe_measured(results: Results) -> MeasuredElsewhere:
    """Results of another machine, as far as the page shows them."""
    machine = results.machine
    named = {key: machine[key] for key in ("system", "processor", "model", "device") if machine.get(key)}
    return {
        "kind": "measured",
        "machine": cast(MeasuredMachine, named),
        "partial": results.partial,
        "cases": [
            {
                "name": case.name,
                "runtime": case.runtime,
                "engine": case.engine,
                "precision": case.precision,
                "threads": case.threads,
                "provider": case.provider,
                "step_ms": cast("dict[str, float]", {k: v for k, v in case.step.to_dict().items() if k != "samples"}),
                "image_ms": case.image_ms,
                "load_ms": case.data.get("load_ms", {}).get("first"),
                "load_again_ms": case.data.get("load_ms", {}).get("again"),
                "first_picture_ms": case.data.get("first_picture_ms"),
                "download_bytes": case.data.get("download_bytes"),
                "peak_memory_bytes": case.data.get("peak_memory_bytes"),
            }
            for case in results.cases
        ],
        "units": list(results.units),
    }


def _describe_target(
    manifest: Manifest, name: str, parity: Parity, timing: MeasuredHere | None, profile: Delegation | None
) -> ReportTarget:
    entry, precision = manifest.data["targets"][name], manifest.targets[name].precision
    return {
        "precision": precision,
        "size_bytes": _size_under(manifest, f"{name}/"),
        "programs": {
            program: cast(ReportProgram, {**spec, "size_bytes": _size_under(manifest, spec["file"])})
            for program, spec in entry["programs"].items()
        },
        "parity": parity.to_dict(),
        "lowering": entry["lowering"],
        "delegation": profile,
        "measured": timing,
    }


def _size_under(manifest: Manifest, prefix: str) -> int:
    # a program is a file or, for Core ML, a folder
    return sum(entry["size_bytes"] for file, entry in manifest.data["files"].items() if file.startswith(prefix))
