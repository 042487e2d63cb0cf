"""ExecuTorch with the XNNPACK backend, for CPUs of phones and boards."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from kind_export.compact import GraphStyle
from kind_export.targets import Lowering, Precision, TargetOptions, one_line_errors
from kind_runtimes.quiet import without_import_noise

with without_import_noise():
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeProgramManager, to_edge_transform_and_lower

SUFFIX = ".pte"
DEFAULT_PRECISION: Precision = "fp32"  # XNNPACK's fp16 is native on ARM only, and cuts the graph elsewhere
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int4")
# XNNPACK has no LayerNorm: as an operator it would cut the graph at every block
STYLE = GraphStyle(norm="matmul")
IMAGE_OUTPUT = False
CASTS_MODULE = True


def lower(lowering: Lowering, file: Path, options: TargetOptions) -> dict[str, Any]:
    """Lower `lowering` to XNNPACK and report what was left to the portable kernels."""
    with warnings.catch_warnings(), torch.no_grad(), one_line_errors("ExecuTorch", lowering):
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        logging.getLogger("executorch").setLevel(logging.ERROR)
        exported = torch.export.export(lowering.module, lowering.example, strict=False)
        edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        program = edge.to_executorch()
    file.write_bytes(program.buffer)
    return describe_delegation(edge)


def describe_delegation(edge: EdgeProgramManager) -> dict[str, Any]:
    """Number of delegates and the ops outside them."""
    calls = [n for n in edge.exported_program().graph.nodes if n.op == "call_function"]
    names = [_op_name(node.target) for node in calls]
    left = Counter(name for name in names if name not in ("executorch_call_delegate", "getitem"))
    return {"num_delegates": names.count("executorch_call_delegate"), "portable_ops": dict(sorted(left.items()))}


def _op_name(target: Any) -> str:
    schema = getattr(target, "_schema", None)
    return str(schema.name) if schema is not None else str(getattr(target, "__name__", target))
