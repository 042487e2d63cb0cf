"""report.json and report.html: what is in the bundle, how big, how much work, how fast here, how close to the model.

The page is made from report.json and preview.png alone, see `page`. What is forecast and what was measured
elsewhere may come later: `refresh_report`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from kind_bench.counting import count_bundle
from kind_bench.forecasting.devices import Device, load_device
from kind_bench.measure.quick import Timing
from kind_bench.results.importing import read_measured
from kind_bench.results.results import Results
from kind_core.checkpoint import Checkpoint
from kind_core.config import DiTConfig
from kind_core.errors import BundleError
from kind_core.files.json_files import read_json
from kind_core.files.staging import PART, claimed, staged
from kind_core.flops import count_flops, count_parameters
from kind_export.compact.model import CompactModel, ConditioningTable, Factors, LowRankTable, Matrix
from kind_export.compact.step import StepProgram
from kind_export.report.forecasts import DEFAULT_DEVICES, describe_forecasts
from kind_export.report.page import render_page
from kind_export.report.work import Works, describe_works
from kind_export.verify.parity import Parity
from kind_runtimes.bundle import BUNDLE, open_bundle
from kind_runtimes.kits import KITS
from kind_runtimes.manifest import Manifest, check_schema

REPORT_VERSION = 2
REPORT_NAME = "report.json"


def write_report(
    folder: Path,
    manifest: Manifest,
    checkpoint: Checkpoint,
    compact: CompactModel,
    parities: dict[str, Parity],
    timings: dict[str, Timing],
    *,
    works: Works,
    devices: Sequence[Device],
    plan: Mapping[str, Any] | None = None,
) -> None:
    """Write both reports into the bundle folder."""
    data = collect_report(folder, manifest, checkpoint, compact, parities, timings, works=works)
    _write(folder, data | {"forecasts": describe_forecasts(works, manifest, devices), "plan": plan})


def refresh_report(path: Path, devices: Sequence[Device]) -> dict[str, Any]:
    """Forecast for `devices`, and take in what was measured elsewhere since: both reports of a bundle, written anew.

    The programs are counted again and nothing is run. Returns the new report; raises BundleError where the bundle or
    its report is broken or of another format.
    """
    bundle = open_bundle(path)
    with claimed(path, BUNDLE):
        data = _read(path / REPORT_NAME)
        measured = [_describe_measured(one) for one in read_measured(bundle)]
        forecasts = describe_forecasts(count_bundle(bundle), bundle.manifest, devices)
        data |= {"forecasts": forecasts, "measured_elsewhere": measured}
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


def _read(file: Path) -> dict[str, Any]:
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
    return dict(data)


def _write(folder: Path, data: dict[str, Any]) -> None:
    check_schema(data, "report", REPORT_NAME)
    preview = folder / "preview.png"
    kits = [kit for kit in KITS if (folder / kit / "README.md").is_file()]
    page = render_page(data, preview.read_bytes() if preview.exists() else None, kits)
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    for name, content in ((REPORT_NAME, text), ("report.html", page)):
        with staged(folder / name, PART, force=True) as partial:
            partial.write_text(content, encoding="utf-8")


def collect_report(
    folder: Path,
    manifest: Manifest,
    checkpoint: Checkpoint,
    compact: CompactModel,
    parities: dict[str, Parity],
    timings: dict[str, Timing],
    *,
    works: Works,
) -> dict[str, Any]:
    """What is known when a bundle is made, as JSON."""
    measured = json.loads((folder / "measured.json").read_text(encoding="utf-8"))
    profiles, sampling = measured.get("delegation", {}), manifest.sampling
    return {
        "format_version": REPORT_VERSION,
        "name": manifest.data["name"],
        "classes": manifest.data["classes"],
        "latents_shape": list(manifest.latents_shape),
        "sampling": {
            "sampler": sampling.sampler,
            "steps": sampling.steps,
            "guidance_scale": sampling.guidance_scale,
            "passes_per_step": _passes_per_step(takes_guidance=sampling.takes_guidance),
            "initial_noise_scale": sampling.initial_noise_scale,
            "guided_steps": [index for index, is_on in enumerate(sampling.guided) if is_on],
            "guidance_interval": manifest.data.get("guidance_interval", [0, 1]),
            "distillation": manifest.data.get("distillation"),
            "is_approximate": manifest.is_approximate,
        },
        "packs": [
            {"name": pack.info.name, "file": pack.file, "size_bytes": pack.size_bytes} for pack in manifest.packs
        ],
        "model": _describe_model(checkpoint.config.dit, compact),
        "rewrites": manifest.data["rewrites"],
        "targets": {
            name: _describe_target(manifest, name, parities[name], timings.get(name), profiles.get(name))
            for name in manifest.targets
        },
        "work": describe_works(works, _step_profiles(profiles)),
        "measured_elsewhere": [],
        "host": {key: measured["machine"].get(key) for key in ("system", "processor", "num_cpus", "load_before")},
        "source": manifest.data["source"],
        "tools": manifest.data["tools"],
    }


def _step_profiles(profiles: Mapping[str, Any]) -> dict[str, Any]:
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


def _describe_measured(results: Results) -> dict[str, Any]:
    """Results of another machine, as far as the page shows them."""
    machine = results.machine
    return {
        "kind": "measured",
        "machine": {key: machine[key] for key in ("system", "processor", "model", "device") if machine.get(key)},
        "partial": results.partial,
        "cases": [
            {
                "name": case.name,
                "runtime": case.runtime,
                "engine": case.engine,
                "precision": case.precision,
                "threads": case.threads,
                "provider": case.provider,
                "step_ms": {k: v for k, v in case.step.to_dict().items() if k != "samples"},
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
    manifest: Manifest, name: str, parity: Parity, timing: Timing | None, profile: Mapping[str, Any] | None
) -> dict[str, Any]:
    entry, precision = manifest.data["targets"][name], manifest.targets[name].precision
    return {
        "precision": precision,
        "size_bytes": _size_under(manifest, f"{name}/"),
        "programs": {
            program: spec | {"size_bytes": _size_under(manifest, spec["file"])}
            for program, spec in entry["programs"].items()
        },
        "parity": parity.to_dict(),
        "lowering": entry["lowering"],
        "delegation": profile,
        "measured": asdict(timing) if timing else None,
    }


def _size_under(manifest: Manifest, prefix: str) -> int:
    # a program is a file or, for Core ML, a folder
    return sum(entry["size_bytes"] for file, entry in manifest.data["files"].items() if file.startswith(prefix))


def _describe_model(config: DiTConfig, compact: CompactModel) -> dict[str, Any]:
    dense = replace(config, learngene_rank=None, tailor_rank=0, tailor_ranks=None)  # the same DiT, not decomposed
    program = StepProgram(compact)
    parameters = count_parameters(config)
    return {
        "num_tokens": config.num_tokens,
        "live_rank": None if config.learngene_rank is None else config.learngene_rank + max(config.ranks),
        "parameters": {
            "dense_twin": round(count_parameters(dense).total),
            "composed": round(parameters.total),
            "stored_in_step": _count_numbers(program),
        },
        "conditioning": {
            "stored": _count_numbers(program.conditioner),
            "replaces": round(parameters.timestep_embedder + parameters.label_embedding + parameters.adaln),
        },
        "matrices_of_a_block": {name: _describe_matrix(name, m, config) for name, m in compact.blocks[0].items()},
        "flops_per_pass": {
            convention: {
                "dense_twin": round(count_flops(dense, convention=convention).total),
                "composed": round(count_flops(config, convention=convention).total),
            }
            for convention in ("paper", "full")
        },
        "flops_per_step_executed": count_step_flops(compact),
    }


def _count_numbers(module: Any) -> int:
    return sum(tensor.numel() for tensor in (*module.parameters(), *module.buffers()))


def _describe_matrix(name: str, matrix: Matrix, config: DiTConfig) -> dict[str, Any]:
    """The form and, per token, the multiplications that it was chosen by: null where the model is not decomposed."""
    joined = 3 if name == "qkv" else 1  # the choice was made for each before they were joined
    out_features, in_features = matrix.shape[0] // joined, matrix.shape[1]
    costs = None
    if config.learngene_rank is not None:
        # the tailor of a single class rides along in the factors, see choose_forms
        learngene_rank = matrix.rank - max(config.ranks)
        tailor_rank = max(config.ranks) if config.num_classes == 1 else 0
        thin, rank = in_features + out_features, learngene_rank + tailor_rank
        costs = {
            "rank": rank,
            "factored": rank * thin,
            "dense": out_features * in_features + tailor_rank * thin,
        }
    return {
        "form": "dense" if matrix.is_dense else "factored",
        "joined": joined,
        "shape": [out_features, in_features],
        "live_rank": None if config.learngene_rank is None else matrix.rank,
        "products_per_token": costs,
    }


def _passes_per_step(*, takes_guidance: bool) -> int:
    """Guidance: the class and the null half."""
    return 2 if takes_guidance else 1


def count_step_flops(model: CompactModel) -> int:
    """2 x multiplications of linear layers and attention products that one step runs, both halves where it has two."""
    config, halves = model.config, _passes_per_step(takes_guidance=model.sampler.takes_guidance)
    tokens = config.num_tokens
    block = sum(_matrix_products(model, name, m) for name, m in model.blocks[0].items()) * tokens * halves
    attention = 2 * tokens * tokens * config.hidden_size * halves
    patch = model.patch_weight.numel() * tokens  # both halves start from the same tokens
    final = model.final_weight.numel() * tokens * halves
    baked = model.conditioning
    adaln = baked.weight.numel() * halves if isinstance(baked, ConditioningTable) else 0
    if isinstance(baked, LowRankTable):
        adaln = baked.rank * baked.null[0].numel()
    return 2 * (config.depth * (block + attention) + patch + final + adaln)


def _matrix_products(model: CompactModel, name: str, matrix: Matrix) -> int:
    out_features, in_features = matrix.shape
    joined = 3 if name == "qkv" else 1
    tailor_rank = matrix.tailors[0].rank if matrix.tailors else (model.pack_rank or 0) * joined
    # as a constant the tailor of a joined matrix is block-diagonal on the way up; as a row it is three matrices
    blocks = joined if model.num_classes > 1 or model.pack_rank else 1
    apart = tailor_rank * (in_features + out_features // blocks)
    if isinstance(matrix.learngene, Factors):
        rank = matrix.rank - (tailor_rank if matrix.gate is None else 0)
        return rank * (out_features + in_features) + apart
    return out_features * in_features + apart
