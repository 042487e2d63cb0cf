"""What LiteRT's GPU delegate does not take, node by node, by the rules that it publishes.

They are those of LiteRT's `tflite/tools/versioning/gpu_compatibility.cc` and of the shapes that `model_builder.cc`
reads, for the operators that a program of this package may hold. What stands here has not been seen on a
phone: the delegate itself, asked by `CompiledModel.isFullyAccelerated`, has the last word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_MAX_AXES = 4
_SLICED_AXES = (3, 4)
_TYPES = ("FLOAT32", "FLOAT16", "INT32", "INT8", "UINT8", "BOOL")
_CASTS = {
    "BOOL": ("FLOAT16", "FLOAT32"),
    "FLOAT16": ("BOOL",),
    "FLOAT32": ("BOOL", "FLOAT32", "INT32"),
    "INT32": ("FLOAT32", "INT32"),
}
_REDUCTIONS = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD")
_TAKEN = """
    ABS ADD AVERAGE_POOL_2D BATCH_MATMUL CAST CONCATENATION CONV_2D COS DEPTHWISE_CONV_2D DEQUANTIZE DIV EXP
    FULLY_CONNECTED GATHER GELU LOGISTIC MAX_POOL_2D MAXIMUM MINIMUM MUL NEG PAD POW QUANTIZE RELU RESHAPE
    RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SIN SLICE SOFTMAX SPLIT SQRT SQUARE SQUARED_DIFFERENCE
    STRIDED_SLICE SUB TANH TRANSPOSE TRANSPOSE_CONV
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Operand:
    """A tensor that a node reads or writes: its shape, the name of its type, whether it is a constant."""

    shape: tuple[int, ...]
    kind: str
    is_constant: bool = False


def find_obstacle(op_type: str, options: Any, reads: Sequence[Operand], writes: Sequence[Operand]) -> str:
    """Why the delegate does not take a node, empty where it does; `options` are those of the flatbuffer's schema."""
    if op_type not in (*_TAKEN.split(), *_REDUCTIONS):
        return "the GPU delegate has no operator for it"
    runtime = [one for one in (*reads, *writes) if not one.is_constant]
    kind = next((one.kind for one in runtime if one.kind not in _TYPES), None)
    if kind is not None:
        return f"the GPU delegate has no numbers of type {kind}"
    axes = max(len(one.shape) for one in runtime)
    if axes > _MAX_AXES:
        return f"the GPU delegate takes {_MAX_AXES} axes at most, not {axes}"
    return _find_misfit(op_type, options, reads, writes)


def _find_misfit(op_type: str, options: Any, reads: Sequence[Operand], writes: Sequence[Operand]) -> str:
    """What of the operands of an operator that it has the delegate does not take, or nothing."""
    first, *others = reads
    axes = len(first.shape)
    match op_type:
        case "SLICE" | "STRIDED_SLICE":
            return "" if axes in _SLICED_AXES else f"the GPU delegate slices 3 or 4 axes, not {axes}"
        case "ADD" | "MUL":
            second = len(others[0].shape)
            is_taken = axes == second or min(axes, second) <= 1
            return "" if is_taken else f"the GPU delegate does not spread {second} axes over {axes}"
        case "FULLY_CONNECTED" if sum(not one.is_constant for one in reads) > 2:
            return "the GPU delegate takes a bias that is a constant"
        case "FULLY_CONNECTED":
            is_taken = options is None or not options.keepNumDims or axes == len(writes[0].shape)
            return "" if is_taken else "the GPU delegate keeps the number of axes"
        case "CAST":
            result = writes[0].kind
            is_taken = result in _CASTS.get(first.kind, ())
            return "" if is_taken else f"the GPU delegate does not convert {first.kind} to {result}"
        case "GATHER":
            is_taken = len(others[0].shape) == 1 and others[0].kind == "INT32"
            return "" if is_taken else "the GPU delegate gathers by one axis of INT32"
        case "SOFTMAX":
            return "" if options is None or options.beta == 1 else "the GPU delegate has no softmax with a beta"
        case _ if op_type in _REDUCTIONS:
            is_taken = others[0].is_constant and others[0].kind == "INT32"
            return "" if is_taken else "the GPU delegate reduces constant axes"
    return ""
