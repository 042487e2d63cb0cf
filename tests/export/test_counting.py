"""What is counted in the files against each other and against the count of the model that they were made of."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kind_core.schedule import read_sampler_table
from kind_export.compact import CompactModel
from kind_export.lowering import lower_target
from kind_export.report import count_step_flops
from kind_export.request import Precision
from kind_export.rewrites import RewriteOptions, rewrite, rewrite_base
from kind_export.targets import TargetOptions
from kind_runtimes.counting import count_program
from kind_runtimes.work import ProgramWork
from tiny import tiny_config, tiny_model, tiny_model_config

STEPS = 4
# Wide enough that norms, biases and the padding of 4-bit groups are what they are in a real model: next to nothing.
_WIDE: dict[str, Any] = {"hidden_size": 64, "depth": 2, "learngene_rank": 30}
_MODELS: dict[str, dict[str, Any]] = {
    "one class": {"num_classes": 1},
    "several classes": {"num_classes": 3},
    "dense matrices": {"num_classes": 1, "learngene_rank": 60},
    "dense, several classes": {"num_classes": 2, "learngene_rank": 60},
    "no learngene": {"num_classes": 2, "learngene_rank": None, "tailor_rank": 0},
}
_PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "onnx": ("fp32", "fp16", "int8", "int4"),
    "executorch": ("fp32", "fp16", "int8", "int4"),
    "coreml": ("fp32", "fp16", "int8", "int4", "palette6", "palette4"),
}


@cache
def _compact(model: str) -> CompactModel:
    config = tiny_config(**_WIDE | _MODELS[model])
    diffusion = tiny_model_config(config, noise_schedule="squaredcos_cap_v2", prediction_type="sample").diffusion
    return rewrite(tiny_model(config), read_sampler_table(diffusion, "dpmpp", STEPS), RewriteOptions())


def _count(target: str, compact: CompactModel, precision: Precision, folder: Path) -> dict[str, ProgramWork]:
    options = TargetOptions(precision=precision, min_ios=18)
    lowered = lower_target(target, compact, folder, options, [True] * STEPS, lambda stage: None)
    return {name: count_program(folder / p.file, p, target) for name, p in lowered.spec.programs.items()}


@pytest.mark.parametrize("target", ["onnx", "coreml", "executorch"])
@pytest.mark.parametrize("model", _MODELS)
def test_flops_are_those_of_the_model(model: str, target: str, tmp_path: Path) -> None:
    compact = _compact(model)
    precision: Precision = "fp16" if target == "coreml" else "fp32"
    work = _count(target, compact, precision, tmp_path)["step"]
    assert work.flops() == pytest.approx(count_step_flops(compact), rel=0.02)
