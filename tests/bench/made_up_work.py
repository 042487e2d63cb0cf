"""Works of programs that do not exist, for tests of forecasts."""

from __future__ import annotations

from typing import Any

from kind_bench.counting.work import ComputePrecision, OpWork, ProgramWork


def make_op(**changes: Any) -> OpWork:
    """A linear layer of 1024 by 1024 on 256 vectors, in fp16."""
    fields: dict[str, Any] = {
        "name": "a", "op_type": "Linear", "op_class": "linear", "backend": "any", "precision": "fp16",
        "flops": 2 * 1024 * 1024 * 256, "elements": 1024 * 256, "bias_elements": 1024 * 256,
        "weight_bytes": 2 * 1024 * 1024, "activation_bytes": 2 * 2 * 1024 * 256,
    }  # fmt: skip
    return OpWork(**{**fields, **changes})


def make_work(
    *,
    target: str = "coreml",
    program: str = "step",
    precision: ComputePrecision = "fp16",
    layers: int = 4,
    scale: float = 1,
) -> ProgramWork:
    """`layers` linear layers, each followed by an activation; `scale` times the products and bytes of `make_op`."""
    size = {"fp32": 4, "fp16": 2, "int8": 1, "int4": 1}[precision]
    linear = make_op(
        precision=precision,
        flops=int(2 * 1024 * 1024 * 256 * scale),
        weight_bytes=int(size * 1024 * 1024 * scale),
    )
    gelu = make_op(
        op_type="Gelu", op_class="elementwise", precision=precision, flops=0, bias_elements=0, weight_bytes=0
    )
    ops = (linear, gelu) * layers
    return ProgramWork(
        target=target, program=program, ops=ops, weight_bytes=sum(op.weight_bytes for op in ops),
        peak_activation_bytes=2**20, num_delegates=0 if target == "onnx" else 1,
    )  # fmt: skip
