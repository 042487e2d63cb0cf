"""What a step would do once lowered, counted without lowering it: for choosing only; reports count the artifact.

The module runs once under a dispatch mode that books every ATen operator in the ledger of the artifact counters.
Weights have the bytes that the asked precision stores them in.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from kind_bench.counting.ledger import Ledger, TensorSize
from kind_bench.counting.work import ComputePrecision, OpClass, OpWork, ProgramWork
from kind_core.precisions import EXACT, PRECISIONS, PrecisionName
from kind_export.precision import quantizable_layers
from kind_export.target_rows import TARGET_ROWS
from kind_export.targets.target import Lowering
from kind_runtimes.engine_rows import ENGINES

_VIEWS = {"view", "_unsafe_view", "reshape", "t", "transpose", "permute", "expand", "unsqueeze", "squeeze", "select"}
_VIEWS |= {"alias", "detach"}
_CLASSES: dict[str, OpClass] = {
    "addmm": "linear",
    "mm": "linear",
    "bmm": "linear",
    "convolution": "convolution",
    "native_layer_norm": "norm",
    "_softmax": "softmax",
    "index_select": "lookup",
    "index": "lookup",
    "embedding": "lookup",
    "cat": "layout",
    "clone": "layout",
    "copy_": "layout",
    "slice": "layout",
    "split": "layout",
    "_to_copy": "quantize",
}
# Beside the numbers themselves: a scale for each row of 8 bit, one for each group of 32 below, which fills up the rank.
_GROUP = 32
_SCALE_BITS = 32


def count_eager(lowering: Lowering, target: str, precision: PrecisionName) -> ProgramWork:
    """Count one run of `lowering` as `target` would run it in `precision`."""
    recorder = _Recorder(lowering.module, target, precision)
    inputs = [torch.zeros_like(one) for one in lowering.example]
    for one in inputs:
        recorder.add_input(one)
    with torch.no_grad(), recorder:
        outputs = lowering.module(*inputs)
    num_delegates = int(ENGINES[target].has_delegates)
    return recorder.ledger.finish(target, lowering.name, map(_name, outputs), num_delegates=num_delegates)


def _stored_bytes(weight: Tensor, bits: int) -> int:
    rows, columns = weight.shape
    if bits >= 8:
        return rows * math.ceil((columns * bits + _SCALE_BITS) / 8)
    return rows * math.ceil(columns / _GROUP) * math.ceil((_GROUP * bits + _SCALE_BITS) / 8)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch does not type its __init_subclass__
    """Books what a module does in bits of what its program would hold and move."""

    def __init__(self, module: nn.Module, target: str, precision: PrecisionName) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        row, stored = TARGET_ROWS[target], PRECISIONS[precision]
        is_half = stored.is_half or (precision != EXACT and not row.casts_module)
        weights = [] if stored.is_float else [layer.weight for layer in quantizable_layers(module).values()]
        # quantised weights, by identity, and their bytes
        self.low = {id(weight): _stored_bytes(weight, stored.weight_bits) for weight in weights}
        self.low_names = frozenset(map(str, self.low))
        # tables and small layers beside integer weights are stored in fp16
        self.bits = 16 if is_half or not stored.is_float else 32
        self.activation_bits = 16 if is_half else 32
        self.plain: ComputePrecision = "fp16" if is_half else "fp32"
        self.compute: ComputePrecision = "int8" if precision in row.integer_products else self.plain
        self.ledger = Ledger()
        self.kept: list[Tensor] = []  # an identity is not used again while its tensor lives
        self.num_ops = 0

    def add_input(self, tensor: Tensor) -> None:
        self.kept.append(tensor)
        self.ledger.add_input(_name(tensor), self._size(tensor))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, object] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        flat, _ = torch.utils._pytree.tree_flatten((args, kwargs))
        reads = [one for one in flat if isinstance(one, Tensor)]
        writes = [one for one in (result if isinstance(result, tuple | list) else (result,)) if isinstance(one, Tensor)]
        count = flop_registry.get(func.overloadpacket)
        flops = 0 if count is None else count(*args, **kwargs, out_val=result)
        self._book(func.overloadpacket.__name__, reads, writes, flops)
        return result

    def _book(self, op_type: str, reads: list[Tensor], writes: list[Tensor], flops: int) -> None:
        for one in reads:
            if _name(one) not in self.ledger:
                self._add_constant(one)
        self.kept += writes
        sizes = [self._size(one) for one in writes]
        if all(self.ledger.is_constant(_name(one)) for one in reads):
            for one, size in zip(writes, sizes, strict=True):
                self.ledger.fold(_name(one), size, map(_name, reads))
            return
        is_view = op_type in _VIEWS or any(w is r for w in writes for r in reads)
        op_class: OpClass = "layout" if is_view else _CLASSES.get(op_type, "elementwise")
        is_low = any(not self.low_names.isdisjoint(self.ledger.sources(_name(one))) for one in reads)
        if op_class == "linear":
            # the mean of a norm may be written as a product with a vector, see `layers.Norm`
            is_mean = writes[0].shape[-1] == 1
            op_class = "norm" if is_mean else self.ledger.product_class(*map(_name, reads[-2:]))
        self.num_ops += 1
        self.ledger.add(
            OpWork(
                name=f"{op_type}_{self.num_ops}",
                op_type=op_type,
                op_class=op_class,
                backend="",
                precision=self.compute if is_low else self.plain,
                flops=flops,
            ),
            [*map(_name, reads)],
            dict(zip(map(_name, writes), sizes, strict=True)),
            has_bias=op_type == "addmm",
            is_view=is_view,
        )

    def _add_constant(self, tensor: Tensor) -> None:
        self.kept.append(tensor)
        size, stored = self._size(tensor, self.bits), self.low.get(id(tensor))
        self.ledger.add_constant(_name(tensor), size, stored=stored)

    def _size(self, tensor: Tensor, bits: int | None = None) -> TensorSize:
        if not tensor.is_floating_point():
            return TensorSize(shape=tuple(tensor.shape), bits=8 * tensor.element_size())
        return TensorSize(shape=tuple(tensor.shape), bits=bits or self.activation_bits)


def _name(tensor: Tensor) -> str:
    return str(id(tensor))
