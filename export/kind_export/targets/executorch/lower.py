"""ExecuTorch with the XNNPACK backend, for CPUs of phones and boards."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kind_core.errors import ExportError
from kind_export.compact.step import GraphStyle
from kind_export.target_rows import TARGET_ROWS
from kind_export.targets.done_once import done_once
from kind_export.targets.executorch.quantization import quantize
from kind_export.targets.target import Facts, Lowering, TargetOptions, one_line_errors
from kind_runtimes.engines.executorch import DEFAULT_METHOD
from kind_runtimes.quiet import without_import_noise

with without_import_noise():
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeProgramManager, to_edge_transform_and_lower

ROW = TARGET_ROWS["executorch"]
# XNNPACK has no LayerNorm: as an operator it would cut the graph at every block
STYLE = GraphStyle(norm="matmul")
_QUANTIZATION_OPS = ("torchao::", "quantized_decomposed::")


def lower(lowering: Lowering, file: Path, options: TargetOptions) -> Facts:
    """Lower `lowering` to XNNPACK and report what was left to the portable kernels."""
    about = options.describe(lowering)
    methods, quantization = _lower_methods({DEFAULT_METHOD: lowering}, file, options, about)
    return methods[DEFAULT_METHOD] | quantization


def lower_pair(
    step: Lowering, unguided: Lowering, is_guided: Sequence[bool], file: Path, options: TargetOptions
) -> tuple[Facts, dict[str, str | None]]:
    """A guided step and its unguided twin as methods of one file: the first is `forward`, the other has its own name.

    XNNPACK names weights by their hash, so what the methods have in common is stored once. `keep` names layers of the
    first and counts for those of the same name in the other.
    """
    functions = {step.name: DEFAULT_METHOD, unguided.name: unguided.name}
    methods = {DEFAULT_METHOD: step, unguided.name: unguided}
    delegated, quantization = _lower_methods(methods, file, options, options.describe(step, functions))
    by_name = {name: delegated[method] for name, method in functions.items()}
    # delegation is reported of the step that most of the time goes into
    return {**delegated[DEFAULT_METHOD], "functions": by_name, **quantization}, {**functions}


def _lower_methods(
    lowerings: Mapping[str, Lowering], file: Path, options: TargetOptions, about: Mapping[str, str]
) -> tuple[dict[str, Facts], Facts]:
    """Write one file; returns the delegation of each method, and the quantisation of the first.

    Each text of `about` is a method that returns it, with `_` for `.` in its name.
    """
    first = lowerings[DEFAULT_METHOD]
    with warnings.catch_warnings(), torch.no_grad(), done_once(), one_line_errors("ExecuTorch", first):
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        logging.getLogger("executorch").setLevel(logging.ERROR)
        quantized = {name: quantize(lowering, options) for name, lowering in lowerings.items()}
        exported = {
            name: torch.export.export(lowering.module, lowering.example, strict=False)
            for name, (lowering, _) in quantized.items()
        }
        constants = {name.replace(".", "_"): text for name, text in about.items()}
        edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()], constant_methods=constants)
        delegated = {name: _describe_delegation(edge, name, lowering) for name, lowering in lowerings.items()}
        program = edge.to_executorch()
    file.write_bytes(program.buffer)
    return delegated, quantized[DEFAULT_METHOD][1]


def _describe_delegation(edge: EdgeProgramManager, method: str, lowering: Lowering) -> Facts:
    """Number of delegates and the ops outside them.

    Raises ExportError where XNNPACK left out what has no portable kernel: the arithmetic of quantisation.
    """
    calls = [n for n in edge.exported_program(method).graph.nodes if n.op == "call_function"]
    names = [_op_name(node.target) for node in calls]
    left = Counter(name for name in names if name not in ("executorch_call_delegate", "getitem"))
    stray = sorted(name for name in left if name.startswith(_QUANTIZATION_OPS))
    if stray:
        raise ExportError(
            f"XNNPACK leaves {', '.join(stray)} of {lowering.name} outside its delegate, expected none",
            "--precision fp32 keeps the program whole, and please report it with this command",
        )
    return {"num_delegates": names.count("executorch_call_delegate"), "portable_ops": dict(sorted(left.items()))}


def _op_name(target: Any) -> str:
    schema = getattr(target, "_schema", None)
    return str(schema.name) if schema is not None else str(getattr(target, "__name__", target))
