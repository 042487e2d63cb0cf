"""A signature of a LiteRT program: every node of its graph, and whether the GPU delegate takes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from kind_bench.counting.ledger import Ledger, TensorSize
from kind_bench.counting.litert_gpu import Operand, find_obstacle
from kind_bench.counting.op_classes import OpClasses
from kind_bench.counting.work import ComputePrecision, OpClass, OpWork, ProgramWork
from kind_core.errors import BundleError, TargetError
from kind_runtimes.engines.litert import read_model
from kind_runtimes.manifest import MAX_ELEMENTS, ProgramSpec

_GPU, _CPU = "GPU", "CPU"
_CLASSES = OpClasses(
    {
        "linear": "FULLY_CONNECTED BATCH_MATMUL",
        "convolution": "CONV_2D DEPTHWISE_CONV_2D TRANSPOSE_CONV",
        "softmax": "SOFTMAX",
        "elementwise": (
            "ABS ADD COS DIV EQUAL EXP GELU GREATER_EQUAL LESS LESS_EQUAL LOGICAL_AND LOGISTIC MAXIMUM MINIMUM MUL "
            "NEG POW RELU RELU_0_TO_1 RSQRT SELECT SELECT_V2 SIN SQRT SQUARE SQUARED_DIFFERENCE SUB TANH"
        ),
        "lookup": "EMBEDDING_LOOKUP GATHER GATHER_ND",
        "layout": (
            "BROADCAST_TO CONCATENATION EXPAND_DIMS PACK PAD RESHAPE SLICE SPLIT SQUEEZE STRIDED_SLICE TILE TRANSPOSE "
            "UNPACK"
        ),
        "quantize": "CAST DEQUANTIZE QUANTIZE",
        "other": (
            "AVERAGE_POOL_2D MAX_POOL_2D MEAN REDUCE_ALL REDUCE_MAX REDUCE_MIN RESIZE_BILINEAR "
            "RESIZE_NEAREST_NEIGHBOR SUM"
        ),
    },
    __name__,
)
_VIEWS = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
# what comes after the first operand says a shape, axes or places: no weights
_MOVERS = ("MEAN", "PAD", "REDUCE_MAX", "REDUCE_MIN", "RESHAPE", "SLICE", "STRIDED_SLICE", "SUM", "TILE", "TRANSPOSE")
_BITS = {
    **dict.fromkeys(("BOOL", "INT8", "UINT8"), 8),
    **dict.fromkeys(("FLOAT16", "INT16"), 16),
    **dict.fromkeys(("FLOAT32", "INT32", "UINT32"), 32),
    **dict.fromkeys(("FLOAT64", "INT64"), 64),
    "INT4": 4,
}
_OP_NAMES: dict[int, str] = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_TYPE_NAMES: dict[int, str] = {code: name for name, code in vars(schema.TensorType).items() if isinstance(code, int)}


def count(file: Path, spec: ProgramSpec) -> ProgramWork:
    """Count one signature of a .tflite file: the program's own, or the first."""
    model = read_model(file)
    held = {one.signatureKey.decode(): one for one in model.signatureDefs or ()}
    key = spec.function or next(iter(held), None)
    if key not in held:
        raise BundleError(f"{file} has no signature {key!r}, expected one of {list(held)}", "export the bundle again")
    walk = _Walk(model=model, graph=model.subgraphs[held[key].subgraphIndex])
    for operator in walk.graph.operators:
        walk.add_operator(operator)
    return walk.ledger.finish("litert", spec.name, [walk.name(index) for index in walk.graph.outputs])


@dataclass(kw_only=True, slots=True)
class _Walk:
    model: Any
    graph: Any
    ledger: Ledger = field(default_factory=Ledger)
    stored: dict[int, int] = field(default_factory=dict)  # what a widened constant is in the file
    places: set[str] = field(default_factory=set)  # what is made of integers that a program takes: one-hot rows

    def __post_init__(self) -> None:
        inputs = set(map(int, self.graph.inputs))
        for index, tensor in enumerate(self.graph.tensors):
            data = self.model.buffers[tensor.buffer].data
            if index in inputs:
                self.ledger.add_input(self.name(index), self._size(tensor))
                self.places |= {self.name(index)} if _TYPE_NAMES[tensor.type] == "INT32" else set()
            elif data is not None:
                scales = tensor.quantization.scale if tensor.quantization is not None else None
                stored = len(data) + (0 if scales is None else 4 * len(scales))
                self.ledger.add_constant(
                    self.name(index), self._size(tensor), identity=f"buffer {tensor.buffer}", stored=stored
                )

    def name(self, index: int) -> str:
        """A tensor's name; signatures name theirs alike, tensors of one graph may not."""
        text = self.graph.tensors[index].name
        return f"{text.decode()}#{index}" if text else f"#{index}"

    def add_operator(self, operator: Any) -> None:
        """Enter one node; what is made of constants alone is made when the file is loaded."""
        op_type = self._op_type(operator)
        indices = [int(index) for index in operator.inputs if index >= 0]
        reads = [self.name(i) for i in (indices[:1] if op_type in _MOVERS else indices)]
        writes = [self.name(int(i)) for i in operator.outputs]
        tensors = [self.graph.tensors[int(i)] for i in operator.outputs]
        sizes = [self._size(one) for one in tensors]
        if all(map(self.ledger.is_constant, reads)):
            for name, size in zip(writes, sizes, strict=True):
                self.ledger.fold(name, size, reads)
            if op_type == "DEQUANTIZE":
                self.stored[int(operator.outputs[0])] = indices[0]
            return
        op_class = self._classify(op_type, reads, indices)
        obstacle = find_obstacle(
            op_type, operator.builtinOptions, self._operands(indices), self._operands(map(int, operator.outputs))
        )
        if op_class in ("elementwise", "layout", "quantize") and any(one in self.places for one in reads):
            self.places |= {*writes} if all(map(self._is_known, reads)) else set()
        is_table = op_class == "lookup" and _CLASSES[op_type] == "linear"
        if is_table:  # a row is a weight where the table is one, whatever says which row
            reads = sorted(reads, key=self.places.__contains__)
        self.ledger.add(
            OpWork(
                name=writes[0],
                op_type=op_type,
                op_class=op_class,
                backend=_CPU if obstacle else _GPU,
                precision=self._precision(op_type, indices),
                flops=self._count_flops(op_type, operator, indices, sizes[0]),
                obstacle=obstacle,
            ),
            reads,
            dict(zip(writes, sizes, strict=True)),
            has_bias=op_type in ("FULLY_CONNECTED", "CONV_2D") and len(reads) > 2,
            is_view=op_type in _VIEWS,
            reads_all=is_table,
        )

    def _op_type(self, operator: Any) -> str:
        code = self.model.operatorCodes[operator.opcodeIndex]
        name = _OP_NAMES.get(int(max(code.builtinCode, code.deprecatedBuiltinCode)), "an unknown one")
        _CLASSES.find(name, f"LiteRT operator {name}")
        return name

    def _classify(self, op_type: str, reads: Sequence[str], indices: Sequence[int]) -> OpClass:
        op_class = _CLASSES[op_type]
        if op_class != "linear":
            return op_class
        if any(one in self.places for one in reads):
            return "lookup"
        return (
            "norm" if self._is_mean(self.stored.get(indices[1], indices[1])) else self.ledger.product_class(*reads[:2])
        )

    def _is_known(self, name: str) -> bool:
        return name in self.places or self.ledger.is_constant(name)

    def _is_mean(self, index: int) -> bool:
        """Whether a product takes the mean: a constant vector of equal numbers, as a LayerNorm is written."""
        tensor = self.graph.tensors[index]
        shape, data = tensor.shape, self.model.buffers[tensor.buffer].data
        if data is None or shape is None or shape[0] != 1:
            return False
        content, width = bytes(data), _BITS[_TYPE_NAMES[tensor.type]] // 8
        return content == content[:width] * (len(content) // width)

    def _precision(self, op_type: str, indices: Sequence[int]) -> ComputePrecision:
        kinds = {_TYPE_NAMES[self.graph.tensors[i].type] for i in indices}
        return "int8" if _CLASSES[op_type] == "linear" and "INT8" in kinds else "fp32"

    def _count_flops(self, op_type: str, operator: Any, indices: Sequence[int], result: TensorSize) -> int:
        first = self.ledger[self.name(indices[0])] if indices else result
        if op_type == "FULLY_CONNECTED":
            return 2 * result.elements * self.ledger[self.name(indices[1])].shape[-1]
        if op_type == "BATCH_MATMUL":
            options = operator.builtinOptions
            return 2 * result.elements * first.shape[-2 if options is not None and options.adjX else -1]
        if _CLASSES[op_type] == "convolution":
            # filters are (out, height, width, in), or (1, height, width, out) a channel each
            _, height, width, channels = self.ledger[self.name(indices[1])].shape
            return 2 * result.elements * height * width * (1 if op_type == "DEPTHWISE_CONV_2D" else channels)
        return 0

    def _operands(self, indices: Any) -> list[Operand]:
        held = ((self.graph.tensors[i], self.ledger.is_constant(self.name(i))) for i in indices)
        return [
            Operand(shape=self._size(tensor).shape, kind=_TYPE_NAMES[tensor.type], is_constant=is_constant)
            for tensor, is_constant in held
        ]

    def _size(self, tensor: Any) -> TensorSize:
        kind = _TYPE_NAMES.get(tensor.type, f"type {tensor.type}")
        if kind not in _BITS:
            raise TargetError(f"the program has a tensor of type {kind}, which is not counted", "report it")
        shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
        if min(shape, default=0) < 0 or math.prod(shape) > MAX_ELEMENTS:
            raise BundleError(f"the program has a tensor of shape {list(shape)}", "export the bundle again")
        return TensorSize(shape=shape, bits=_BITS[kind])
