"""Fewer bits in an ONNX graph, by onnxruntime's own tools.

int8: weights from -64 to 64 in 8 bits, one scale an output channel, and 8-bit activations with a range taken at each
call. Runs in integer arithmetic, which is several times faster. On x86 without VNNI onnxruntime adds two products in 16
bits, which larger weights can saturate (2 x 255 x 127): a program would be right on some processors alone. int4: 4-bit
weights in groups of 32 with fp32 activations, for size: it runs no faster than fp32. Tables and other large constants
are stored in fp16 and computed with in fp32.
"""

from __future__ import annotations

import ast
import contextlib
import logging
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kind_core.errors import ExportError
from kind_core.precisions import PrecisionName
from kind_export.targets.target import Facts

GROUP_SIZE = 32
_MIN_TABLE_ELEMENTS = 4096
_SCOPES = "pkg.torch.onnx.name_scopes"


def find_products(model: onnx.ModelProto, layers: Collection[str]) -> dict[str, str]:
    """The node of each linear layer of the exported module, by the module's name.

    Raises ExportError for a layer without one: the exporter's notes on its nodes are then not what they were.
    """
    found: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Gemm"):
            scopes = [p.value for p in node.metadata_props if p.key == _SCOPES]
            found |= {ast.literal_eval(text)[-2]: node.name for text in scopes}
    missing = next((name for name in layers if name not in found), None)
    if missing is not None:
        raise ExportError(f"the ONNX graph has no product of layer {missing!r}", "please report it with this command")
    return {name: found[name] for name in layers}


def quantize(
    model: onnx.ModelProto, products: Mapping[str, str], precision: PrecisionName, keep: Collection[str]
) -> tuple[onnx.ModelProto, Facts]:
    """`model` with the `products` (node by layer) in `precision`, and facts for the manifest."""
    chosen = [node for layer, node in products.items() if layer not in keep]
    kept = [layer for layer in products if layer in keep]
    with _quiet():
        if precision == "int8":
            model = _to_int8(model, chosen)
            scheme = "8-bit weights a channel from -64 to 64, 8-bit activations with dynamic ranges"
        else:
            model = _to_int4(model, chosen)
            model = _to_int8(model, [products[layer] for layer in kept])
            scheme = f"4-bit weights in groups of {GROUP_SIZE}, fp32 activations"
    _halve_constants(model)
    return model, {"quantization": {"scheme": scheme, "num_layers": len(chosen), "kept": kept}}


def _to_int8(model: onnx.ModelProto, nodes: list[str]) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if not nodes:
        return model
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "int8.onnx"
        quantize_dynamic(
            model,
            file,
            nodes_to_quantize=nodes,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            reduce_range=True,  # -64 to 64
            # what operators of onnxruntime's own domain give, which shape inference does not know
            extra_options={"DefaultTensorType": TensorProto.FLOAT},
        )
        return onnx.load(file)


def _to_int4(model: onnx.ModelProto, nodes: list[str]) -> onnx.ModelProto:
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    others = [node.name for node in model.graph.node if node.name not in set(nodes)]
    config = DefaultWeightOnlyQuantConfig(block_size=GROUP_SIZE, is_symmetric=True, bits=4)
    quantizer = MatMulNBitsQuantizer(model, nodes_to_exclude=others, algo_config=config)
    quantizer.process()
    return quantizer.model.model


def _halve_constants(model: onnx.ModelProto) -> None:
    """Store large fp32 constants in fp16 and widen them where they are read: a table after it was looked up."""
    graph = model.graph
    reads = Counter(name for node in graph.node for name in node.input)
    lookups = {node.input[0]: node for node in graph.node if node.op_type == "Gather"}
    first, after = [], {}
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _MIN_TABLE_ELEMENTS:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name))
        lookup = lookups.get(name)
        if lookup is not None and reads[name] == 1:
            after[lookup.name] = _widen_output(lookup)
        else:
            first.append(_widen_input(graph, name))
    nodes = [*first, *(one for node in graph.node for one in (node, after.get(node.name)) if one is not None)]
    del graph.node[:]
    graph.node.extend(nodes)


def _widen_output(node: onnx.NodeProto) -> onnx.NodeProto:
    wide = node.output[0]
    node.output[0] = f"{wide}_half"
    return helper.make_node("Cast", [node.output[0]], [wide], f"{wide}_widen", to=TensorProto.FLOAT)


def _widen_input(graph: onnx.GraphProto, name: str) -> onnx.NodeProto:
    for node in graph.node:
        for i, read in enumerate(node.input):
            if read == name:
                node.input[i] = f"{name}_wide"
    return helper.make_node("Cast", [name], [f"{name}_wide"], f"{name}_widen", to=TensorProto.FLOAT)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the tools' advice, which they give on the root logger, and undo what one of them does to it."""
    root = logging.getLogger()
    disabled, level, handlers = root.manager.disable, root.level, list(root.handlers)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
        root.setLevel(level)  # the quantiser of 4 bits configures logging when it is imported
        root.handlers[:] = handlers
