"""What a program does each time it runs, operator by operator: products, bytes, memory, and which backend runs what.

Filled by `counting` from the artifact itself, never from the eager model, so that it holds for what is really shipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

OpClass = Literal[
    "linear", "attention", "convolution", "norm", "softmax", "elementwise", "lookup", "layout", "quantize", "other"
]
ComputePrecision = Literal["fp32", "fp16", "int8", "int4"]
Convention = Literal["full", "paper"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OpWork:
    """One operator of a program, as its file holds it.

    `op_class`: `linear` multiplies by weights, `attention` two activations; `layout` only moves (transpose, slice,
    concatenate), `lookup` reads a row of a table, `quantize` converts between number formats.
    `precision`: what it computes in. `flops`: 2 x multiply-adds of products and convolutions, 0 for the rest.
    `elements`: numbers it writes. `bias_elements`: how many of them a bias is added to inside the operator.
    `weight_bytes`: constants that it reads, as stored; `activation_bytes`: what it reads and writes besides. A
    reshape that moves nothing has 0. `obstacle`: why the fast backend does not take it, empty where it does.
    `layer`: the part of the model that it belongs to by the names of its weights (`blocks.3`, `patch`), empty where the
    file has no such names.
    """

    name: str
    op_type: str
    op_class: OpClass
    backend: str
    precision: ComputePrecision
    flops: int = 0
    elements: int = 0
    bias_elements: int = 0
    weight_bytes: int = 0
    activation_bytes: int = 0
    obstacle: str = ""
    layer: str = ""

    @property
    def bytes_moved(self) -> int:
        """Bytes of memory traffic if nothing stays in a cache."""
        return self.weight_bytes + self.activation_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramWork:
    """All operators of one program of `target` in the order of the file.

    `weight_bytes`: constants of the program, each once; `bytes_by_bits`: the same by the bits of an element as stored,
    of which packed numbers of 4 or 6 bits may be told as bytes. `peak_activation_bytes`: the most that is alive at once
    when every result is freed after its last reader. `num_delegates`: parts handed to an accelerated backend.
    """

    target: str
    program: str
    ops: tuple[OpWork, ...]
    weight_bytes: int
    peak_activation_bytes: int
    num_delegates: int
    bytes_by_bits: Mapping[int, int] = field(default_factory=dict)

    def flops(self, convention: Convention = "full") -> int:
        """FLOPs of one run.

        `full`: 2 x multiply-adds of linear layers, convolutions and attention products. `paper`: KIND's convention,
        without the attention products, with one for each bias add and each element that is normalised.
        """
        if convention == "full":
            return sum(op.flops for op in self.ops if op.op_class in ("linear", "convolution", "attention"))
        layers = sum(op.flops + op.bias_elements for op in self.ops if op.op_class in ("linear", "convolution"))
        return layers + sum(op.elements for op in self.ops if op.op_class == "norm")

    @property
    def bytes_moved(self) -> int:
        """Bytes of memory traffic of one run if nothing stays in a cache."""
        return sum(op.bytes_moved for op in self.ops)
