"""Results documents that no machine measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kind_core.files.hashing import hash_file
from kind_runtimes.bundle import MANIFEST_NAME, Bundle

STEP_MS = (5.0, 4.0, 6.0, 8.0, 7.0)


def minimal_results(bundle: Bundle, /, **changes: Any) -> dict[str, Any]:
    """No more than an app must write; `changes` are top-level fields."""
    data = {
        "format_version": 1,
        "kind": "measured",
        "made_by": "a test app 1.0",
        "bundle": {"name": "small", "manifest_sha256": hash_file(bundle.path / MANIFEST_NAME)},
        "machine": {"system": "Android 15", "processor": "SM8650"},
        "cases": [minimal_case()],
    }
    return {**data, **changes}


def minimal_case(**changes: Any) -> dict[str, Any]:
    """One case of it."""
    case = {"runtime": "onnx", "engine": "onnxruntime", "step_ms": {"samples": list(STEP_MS)}}
    return {**case, **changes}


def write_json(file: Path, data: Mapping[str, Any]) -> Path:
    """`data` in `file`, which is given back."""
    file.write_text(json.dumps(data), encoding="utf-8")
    return file


def made_up_units() -> list[dict[str, Any]]:
    """A GPU that draws something else, an NPU that does not open, and a CPU that is right."""
    common = {"runtime": "onnx", "steps": 20, "step_ms": 5.5, "first_load_ms": 120.0, "peak_memory_bytes": 90_000_000}
    return [
        {"name": "NNAPI", "kind": "npu", "runtime": "onnx", "is_taken": False, "steps": 0, "reason": "no <driver>"},
        {
            **common,
            "name": "QNN-GPU",
            "kind": "gpu",
            "is_taken": False,
            "psnr_db": 12.3,
            "reason": "latents of 12.3 dB",
        },
        {**common, "name": "CPU", "kind": "cpu", "is_taken": True, "psnr_db": 91.0},
    ]
