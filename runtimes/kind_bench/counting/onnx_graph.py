"""An ONNX graph, node by node as it is in the file; onnxruntime joins some of them when it loads it.

Where a graph picks a guided or an unguided branch by the step, one of the two is counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from kind_bench.counting.ledger import Ledger, TensorSize
from kind_bench.counting.op_classes import OpClasses
from kind_bench.counting.work import ComputePrecision, OpClass, OpWork, ProgramWork
from kind_core.errors import BundleError, TargetError
from kind_runtimes.manifest import MAX_ELEMENTS, ProgramSpec

BACKEND = "CPU"
_VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
_CLASSES = OpClasses(
    {
        "linear": "MatMul Gemm MatMulInteger MatMulNBits",
        "convolution": "Conv ConvInteger",
        "attention": "MultiHeadAttention",
        "norm": "LayerNormalization GroupNormalization InstanceNormalization RMSNormalization",
        "softmax": "Softmax",
        "elementwise": (
            "Abs Add And Ceil Clip Cos Div Equal Erf Exp Floor Gelu Greater Less Log Max Min Mod Mul Neg Not Or Pow "
            "Reciprocal Relu Round Sigmoid Sin Sqrt Sub Tanh Where"
        ),
        "lookup": "Gather",
        "layout": "Concat Expand Pad Slice Split Tile Transpose Reshape Squeeze Unsqueeze Flatten Identity",
        "quantize": "Cast DequantizeLinear DynamicQuantizeLinear QuantizeLinear",
        "other": (
            "AveragePool ConstantOfShape GlobalAveragePool Range ReduceMax ReduceMean ReduceMin ReduceSum Resize Shape"
        ),
    },
    __name__,
)
_BITS = {
    **dict.fromkeys((TensorProto.INT4, TensorProto.UINT4), 4),
    **dict.fromkeys((TensorProto.BOOL, TensorProto.INT8, TensorProto.UINT8), 8),
    **dict.fromkeys((TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT16, TensorProto.UINT16), 16),
    **dict.fromkeys((TensorProto.FLOAT, TensorProto.INT32, TensorProto.UINT32), 32),
    **dict.fromkeys((TensorProto.DOUBLE, TensorProto.INT64, TensorProto.UINT64), 64),
}
_INTEGER_PRODUCTS = ("MatMulInteger", "ConvInteger")
_MAX_SHAPE_ELEMENTS = 64  # constants up to here may say a shape; larger ones are numbers that inference need not see


def count(file: Path, spec: ProgramSpec, *, is_guided: bool = True) -> ProgramWork:
    """Count the program in an .onnx file; of two branches the guided one, or the other if not `is_guided`."""
    try:
        model = onnx.load(file)
    except Exception as error:  # protobuf's DecodeError, whose module differs between its implementations, or OSError
        raise BundleError(f"{file} cannot be read as an ONNX model: {error}", "export the bundle again") from error
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    for tensor in model.graph.initializer:
        _require_whole(tensor)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        shape = [one.dim_value for one in value.type.tensor_type.shape.dim]
        if math.prod(shape) > MAX_ELEMENTS:  # inference counts through them, one by one
            raise BundleError(f"{file} has a tensor of shape {shape}, beyond any program's", "export the bundle again")
    nodes = list(_flatten(model.graph, is_guided))
    walk = _Walk(types=_infer_types(model, nodes))
    walk.add_graph(model.graph, nodes)
    return walk.ledger.finish("onnx", spec.name, [value.name for value in model.graph.output])


def _flatten(graph: Any, is_guided: bool) -> Iterator[Any]:
    """The nodes of a graph, those of the chosen branch in the place of an `If`."""
    for node in graph.node:
        if node.op_type != "If":
            yield node
            continue
        branch = next(one.g for one in node.attribute if one.name == ("then_branch" if is_guided else "else_branch"))
        names = {value.name: outer for value, outer in zip(branch.output, node.output, strict=True)}
        for inner in _flatten(branch, is_guided):
            inner.input[:] = [names.get(name, name) for name in inner.input]
            inner.output[:] = [names.get(name, name) for name in inner.output]
            yield inner


@dataclass(kw_only=True, slots=True)
class _Walk:
    types: dict[str, Any]
    ledger: Ledger = field(default_factory=Ledger)
    makers: dict[str, Any] = field(default_factory=dict)

    def add_graph(self, graph: Any, nodes: Sequence[Any]) -> None:
        """Enter the constants and inputs of `graph`, and `nodes`."""
        constants = {tensor.name for tensor in graph.initializer}
        for tensor in graph.initializer:
            self.ledger.add_constant(tensor.name, _size_of(tensor))
        for value in graph.input:
            if value.name not in constants:
                self.ledger.add_input(value.name, self._size(value.name))
        for node in nodes:
            self._add_node(node)

    def _add_node(self, node: Any) -> None:
        if node.op_type == "Constant":
            return self._add_constant(node)
        reads = [name for name in node.input if name]
        writes = [name for name in node.output if name]
        sizes = [self._size(name) for name in writes]
        if all(map(self.ledger.is_constant, reads)):
            for name, size in zip(writes, sizes, strict=True):
                self.ledger.fold(name, size, reads)
            return None
        op_class = self._classify(node, reads)
        self.makers |= dict.fromkeys(writes, node)
        self.ledger.add(
            OpWork(
                name=node.name,
                op_type=node.op_type,
                op_class=op_class,
                backend=BACKEND,
                precision=self._precision(node),
                flops=self._count_flops(node, sizes[0].elements),
            ),
            reads,
            dict(zip(writes, sizes, strict=True)),
            has_bias=node.op_type in ("Gemm", "Conv") and len(reads) > 2,
            is_view=node.op_type in _VIEWS,
        )
        self._find_bias(node)
        return None

    def _add_constant(self, node: Any) -> None:
        value = next((one.t for one in node.attribute if one.name == "value"), None)
        size = self._size(node.output[0]) if value is None else _size_of(value)
        self.ledger.add_constant(node.output[0], size)

    def _classify(self, node: Any, reads: Sequence[str]) -> OpClass:
        op_class = _CLASSES.find(node.op_type, f"ONNX node {node.name!r} has type {node.op_type}, which")
        # the scales and zero points of integer products are no factors
        return self.ledger.product_class(*reads[:2]) if op_class == "linear" else op_class

    def _precision(self, node: Any) -> ComputePrecision:
        if node.op_type in _INTEGER_PRODUCTS:
            return "int8"
        return "fp16" if self.types[node.output[0]].elem_type == TensorProto.FLOAT16 else "fp32"

    def _count_flops(self, node: Any, elements: int) -> int:
        if node.op_type in ("MatMul", "MatMulInteger"):
            return 2 * elements * self.ledger[node.input[0]].shape[-1]
        if node.op_type == "MatMulNBits":
            return 2 * elements * int(_read_attribute(node, "K"))
        if node.op_type == "Gemm":
            return 2 * elements * self.ledger[node.input[0]].shape[0 if _read_attribute(node, "transA", 0) else -1]
        if _CLASSES[node.op_type] == "convolution":
            return 2 * elements * math.prod(self.ledger[node.input[1]].shape[1:])
        if node.op_type == "MultiHeadAttention":
            query, key, value = (self.ledger[name] for name in node.input[:3])
            return 2 * query.shape[1] * (key.elements + value.elements)
        return 0

    def _find_bias(self, node: Any) -> None:
        """torch.onnx adds the bias of a layer by an operator after the product, integer products scale in between."""
        if node.op_type != "Add":
            return
        vectors = [name for name in node.input if self.ledger.is_constant(name) and len(self.ledger[name].shape) == 1]
        others = [name for name in node.input if name not in vectors]
        if len(vectors) != 1 or self.ledger[vectors[0]].elements != self.ledger[node.output[0]].shape[-1]:
            return
        maker = self.makers.get(others[0])
        while maker is not None and maker.op_type in ("Cast", "Mul"):
            maker = self.makers.get(maker.input[0])
        if maker is not None and _CLASSES[maker.op_type] == "linear":
            self.ledger.mark_bias(maker.output[0])

    def _size(self, name: str) -> TensorSize:
        kind = self.types.get(name)
        if (
            kind is None
            or not kind.HasField("shape")
            or not all(d.HasField("dim_value") and d.dim_value >= 0 for d in kind.shape.dim)
        ):
            raise BundleError(
                f"the ONNX graph does not say the shape of {name!r}, and it does not follow from its operators",
                "export it with shapes that are fixed",
            )
        return TensorSize(shape=tuple(one.dim_value for one in kind.shape.dim), bits=_bits(kind.elem_type, name))


def _size_of(tensor: Any) -> TensorSize:
    return TensorSize(shape=tuple(tensor.dims), bits=_bits(tensor.data_type, tensor.name))


def _require_whole(tensor: Any) -> None:
    """Raise BundleError where a shape says more than the file holds: shape inference would make room for it."""
    if tensor.data_location == TensorProto.EXTERNAL or not tensor.raw_data:
        typed = sum(len(getattr(tensor, f"{kind}_data")) for kind in ("float", "int32", "int64", "double", "uint64"))
        held = typed if tensor.data_location != TensorProto.EXTERNAL else math.prod(tensor.dims)
    else:
        held = len(tensor.raw_data) * 8 // _bits(tensor.data_type, tensor.name)
    if math.prod(tensor.dims) > held or min(tensor.dims, default=0) < 0:
        shape = list(tensor.dims)
        raise BundleError(f"tensor {tensor.name!r} has shape {shape}, but {held} numbers", "export the bundle again")


def _bits(kind: int, name: str) -> int:
    if kind not in _BITS:
        raise TargetError(f"ONNX tensor {name!r} is of type {kind}, which is not counted", "report it")
    return _BITS[kind]


def _infer_types(model: Any, nodes: Sequence[Any]) -> dict[str, object]:
    """The tensor types of all names, inferred on a copy of the nodes without the large constants."""
    stripped = onnx.ModelProto()
    kept = [one for one in model.graph.initializer if math.prod(one.dims) <= _MAX_SHAPE_ELEMENTS]
    large = [one for one in model.graph.initializer if math.prod(one.dims) > _MAX_SHAPE_ELEMENTS]
    stripped.ir_version = model.ir_version
    stripped.opset_import.extend(model.opset_import)
    stripped.graph.name = "shapes"
    stripped.graph.node.extend(nodes)
    stripped.graph.input.extend(model.graph.input)
    stripped.graph.output.extend(model.graph.output)
    stripped.graph.initializer.extend(kept)
    stripped.graph.input.extend(helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in large)
    stripped.graph.input.extend(made for node in stripped.graph.node for made in _stand_in(node))
    graph = onnx.shape_inference.infer_shapes(stripped, data_prop=True).graph
    return {value.name: value.type.tensor_type for value in (*graph.input, *graph.output, *graph.value_info)}


def _stand_in(node: Any) -> list[Any]:
    """Make an operator of onnxruntime's own one that ONNX can infer the same output shape of; returns new inputs."""
    if node.op_type == "MultiHeadAttention":
        node.op_type, node.domain = "Identity", ""
        del node.input[1:], node.attribute[:]
    elif node.op_type == "MatMulNBits":
        shape = [_read_attribute(node, "K"), _read_attribute(node, "N")]
        weight = helper.make_tensor_value_info(f"{node.output[0]}/weight", TensorProto.FLOAT, shape)
        node.op_type, node.domain = "MatMul", ""
        node.input[:] = [node.input[0], weight.name]
        del node.attribute[:]
        return [weight]
    return []


def _read_attribute(node: Any, name: str, default: object = None) -> Any:
    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), default)
