"""A target that nothing knows of: ONNX under another name, with its own engine and counter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kind_bench.counting import onnx_graph
from kind_bench.counting.work import ProgramWork
from kind_export.target_rows import TargetRow
from kind_export.targets.onnx.lower import STYLE, lower, lower_pair  # noqa: F401
from kind_runtimes.engine_rows import Engine
from kind_runtimes.engines.onnx import describe_file, open_program  # noqa: F401

ROW = TargetRow(name="toy", module="toy_target", tools=("onnx",), casts_module=True)
ENGINE = Engine(
    name="toy", title="Toy", module="toy_target", package="onnxruntime", suffix=".toy", file_kind="Toy program",
    counter="toy_target",
)  # fmt: skip


def count(file: Path, spec: Any, *, is_guided: bool = True) -> ProgramWork:
    """The work of a program, as an ONNX file's."""
    return replace(onnx_graph.count(file, spec, is_guided=is_guided), target="toy")
