"""report.json and report.html: what is in the bundle, how big, how much work, how fast here, how close to the model."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kind_core.checkpoint import Checkpoint
from kind_core.config import DiTConfig
from kind_core.flops import count_flops, count_parameters
from kind_export.compact import CompactModel, Factors, StepProgram
from kind_export.verify import Parity
from kind_runtimes.manifest import Manifest, check_schema
from kind_runtimes.timing import Timing

REPORT_VERSION = 1
PASSES_PER_STEP = 2  # guidance: the class and the null half


def write_report(
    folder: Path,
    manifest: Manifest,
    checkpoint: Checkpoint,
    compact: CompactModel,
    parities: dict[str, Parity],
    timings: dict[str, Timing],
) -> None:
    """Write both reports into the bundle folder."""
    data = collect_report(folder, manifest, checkpoint, compact, parities, timings)
    check_schema(data, "report", "report.json")
    (folder / "report.json").write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    preview = folder / "preview.png"
    picture = base64.b64encode(preview.read_bytes()).decode() if preview.exists() else ""
    (folder / "report.html").write_text(render_html(data, picture), encoding="utf-8")


def collect_report(
    folder: Path,
    manifest: Manifest,
    checkpoint: Checkpoint,
    compact: CompactModel,
    parities: dict[str, Parity],
    timings: dict[str, Timing],
) -> dict[str, Any]:
    """Everything the report says, as JSON."""
    sizes = {
        name: sum(e["size_bytes"] for file, e in manifest.data["files"].items() if file.startswith(f"{name}/"))
        for name in manifest.targets
    }
    return {
        "format_version": REPORT_VERSION,
        "name": manifest.data["name"],
        "classes": manifest.data["classes"],
        "sampling": {
            "sampler": manifest.sampler, "steps": manifest.steps, "guidance_scale": manifest.guidance_scale,
            "passes_per_step": PASSES_PER_STEP,
        },
        "model": _describe_model(checkpoint.config.dit, compact),
        "rewrites": manifest.data["rewrites"],
        "targets": {
            name: {
                "precision": target.precision,
                "size_bytes": sizes[name],
                "parity": parities[name].to_dict(),
                "lowering": manifest.data["targets"][name]["lowering"],
                "measured": asdict(timings[name]) if name in timings else None,
            }
            for name, target in manifest.targets.items()
        },
        "host": json.loads((folder / "measured.json").read_text())["host"],
        "source": manifest.data["source"],
        "tools": manifest.data["tools"],
    }  # fmt: skip


def _describe_model(config: DiTConfig, compact: CompactModel) -> dict[str, Any]:
    dense = DiTConfig(
        **{**asdict(config), "learngene_rank": None, "tailor_rank": 0, "tailor_ranks": None}
    )  # the same DiT without decomposition
    program = StepProgram(compact)
    stored = sum(t.numel() for t in (*program.parameters(), *program.buffers()))
    live_rank = None if config.is_dense else (config.learngene_rank or 0) + max(config.ranks)
    return {
        "num_tokens": config.num_tokens,
        "live_rank": live_rank,
        "parameters": {
            "dense_twin": round(count_parameters(dense).total),
            "composed": round(count_parameters(config).total),
            "stored_in_step": stored,
        },
        "flops_per_pass": {
            convention: {
                "dense_twin": round(count_flops(dense, convention=convention).total),
                "composed": round(count_flops(config, convention=convention).total),
            }
            for convention in ("paper", "full")
        },
        "flops_per_step_executed": count_step_flops(compact),
    }


def count_step_flops(model: CompactModel) -> int:
    """2 x multiplications of the linear layers and attention products that one step runs, both halves, unpadded ranks."""
    config, halves = model.config, PASSES_PER_STEP
    tokens = config.num_tokens
    block = sum(_matrix_products(matrix) for matrix in model.blocks[0].values()) * tokens * halves
    attention = 2 * tokens * tokens * config.hidden_size * halves
    patch = model.patch_weight.numel() * tokens
    final = model.final_weight.numel() * tokens * halves
    return 2 * (config.depth * (block + attention) + patch + final)


def _matrix_products(matrix: Any) -> int:
    out_features, in_features = matrix.shape
    tailor_rank = matrix.tailors[0].rank if matrix.tailors else 0
    apart = tailor_rank * (out_features + in_features)
    if isinstance(matrix.learngene, Factors):
        rank = matrix.rank - (tailor_rank if matrix.gate is None else 0)
        return int(rank * (out_features + in_features) + apart)
    return int(out_features * in_features + apart)


def render_html(data: dict[str, Any], preview_base64: str) -> str:
    """One self-contained page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("kind_export"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html").render(report=data, preview=preview_base64)
