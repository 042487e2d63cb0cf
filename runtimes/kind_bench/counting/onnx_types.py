"""Shapes and types of what an ONNX graph computes, as far as ONNX can infer them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper

_MAX_SHAPE_ELEMENTS = 64  # constants up to here may say a shape; larger ones are numbers that inference need not see


def infer_types(model: Any, nodes: Sequence[Any]) -> dict[str, object]:
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
        shape = [read_attribute(node, "K"), read_attribute(node, "N")]
        weight = helper.make_tensor_value_info(f"{node.output[0]}/weight", TensorProto.FLOAT, shape)
        node.op_type, node.domain = "MatMul", ""
        node.input[:] = [node.input[0], weight.name]
        del node.attribute[:]
        return [weight]
    return []


def read_attribute(node: Any, name: str, default: object = None) -> Any:
    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), default)
