"""ExecuTorch with the XNNPACK backend, for CPUs of phones and boards."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

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


class _Delegated(TypedDict):
    """What is said of a method's delegates."""

    num_delegates: int
    portable_ops: dict[str, int]


def lower(lowering: Lowering, file: Path, options: TargetOptions) -> Facts:
    """Lower `lowering` to XNNPACK and report what was left to the portable kernels."""
    about = options.describe(lowering)
    methods, quantization = _lower_methods({DEFAULT_METHOD: lowering}, file, options, about)
    return methods[DEFAULT_METHOD] | quantization


def lower_functions(lowerings: Mapping[str, Lowering], file: Path, options: TargetOptions) -> Facts:
    """Lower several programs into one file, a method each: the first is `forward`, the others have their names.

    XNNPACK names weights by their hash, so what the methods have in common is stored once. `keep` names layers of the
    first program and counts for those of the same name in the others.
    """
    first, *others = lowerings
    if DEFAULT_METHOD in others:
        raise ExportError(f"function {DEFAULT_METHOD!r} comes after {first!r}, expected it first", "name it otherwise")
    named = {DEFAULT_METHOD: lowerings[first], **{name: lowerings[name] for name in others}}
    about = options.describe(lowerings[first], dict(zip(lowerings, named, strict=True)))
    methods, quantization = _lower_methods(named, file, options, about)
    return {"functions": {first: methods[DEFAULT_METHOD], **{name: methods[name] for name in others}}} | quantization


def lower_pair(
    step: Lowering, unguided: Lowering, is_guided: Sequence[bool], file: Path, options: TargetOptions
) -> tuple[Facts, dict[str, str | None]]:
    """A guided step and its unguided twin as methods of one file."""
    facts = lower_functions({step.name: step, unguided.name: unguided}, file, options)
    # delegation is reported of the step that most of the time goes into
    functions = cast("dict[str, Facts]", facts["functions"])
    return functions[step.name] | facts, {step.name: DEFAULT_METHOD, unguided.name: unguided.name}


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
        delegated = {name: describe_delegation(edge, name) for name in lowerings}
        _require_delegated(delegated, first)
        program = edge.to_executorch()
    file.write_bytes(program.buffer)
    return {name: {**one} for name, one in delegated.items()}, quantized[DEFAULT_METHOD][1]


def describe_delegation(edge: EdgeProgramManager, method: str = DEFAULT_METHOD) -> _Delegated:
    """Number of delegates and the ops outside them."""
    calls = [n for n in edge.exported_program(method).graph.nodes if n.op == "call_function"]
    names = [_op_name(node.target) for node in calls]
    left = Counter(name for name in names if name not in ("executorch_call_delegate", "getitem"))
    return {"num_delegates": names.count("executorch_call_delegate"), "portable_ops": dict(sorted(left.items()))}


def _require_delegated(methods: Mapping[str, _Delegated], lowering: Lowering) -> None:
    """Raise ExportError where XNNPACK left out what has no portable kernel: the arithmetic of quantisation."""
    left = {op for facts in methods.values() for op in facts["portable_ops"] if op.startswith(_QUANTIZATION_OPS)}
    if left:
        raise ExportError(
            f"XNNPACK leaves {', '.join(sorted(left))} of {lowering.name} outside its delegate, expected none",
            "--precision fp32 keeps the program whole, and please report it with this command",
        )


def _op_name(target: Any) -> str:
    schema = getattr(target, "_schema", None)
    return str(schema.name) if schema is not None else str(getattr(target, "__name__", target))
