"""Fewer bits in a LiteRT program.

int8, by ai-edge-quantizer: 8-bit weights, one scale an output channel, and 8-bit activations with a range taken at each
call. All other constants of size, tables among them, and of fp16 all, are stored in 16 bits: a CPU widens them when it
loads the file, a GPU computes in them.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_quantizer import quantizer, recipe_manager
from ai_edge_quantizer.qtyping import TFLOperationName

from kind_core.errors import ExportError
from kind_export.precision import quantizable_layers
from kind_export.targets.litert.flatbuffer import build, parse, product_name
from kind_export.targets.target import Facts, Lowering, TargetOptions

_SCHEME = "8-bit weights a channel, 8-bit activations with dynamic ranges"
_MIN_ELEMENTS = 64
_FLOAT, _HALF = schema.TensorType.FLOAT32, schema.TensorType.FLOAT16


def quantize(
    content: bytes, products: Collection[str], lowerings: Sequence[Lowering], options: TargetOptions
) -> tuple[bytes, Facts]:
    """The model `content` with 8-bit weights in all layers that are worth it but those of `keep`, and facts for the
    manifest. `products` are the names of what layers give in it; raises ExportError for a layer that is not there.
    """
    layers = list(quantizable_layers(lowerings[0].module))
    if not layers:  # the decode program has none
        return content, {}
    chosen = [name for name in layers if name not in options.keep]
    recipe = recipe_manager.RecipeManager()
    for product in (product_name(one.name, layer) for one in lowerings for layer in chosen):
        if product not in products:
            raise ExportError(f"the LiteRT graph has no product {product!r}", "please report it with this command")
        recipe.add_dynamic_config(f"^{re.escape(product)};", TFLOperationName.FULLY_CONNECTED, num_bits=8)
    if chosen:
        maker = quantizer.Quantizer(bytearray(content), recipe.get_quantization_recipe())
        with contextlib.redirect_stderr(io.StringIO()):  # a bar of its own
            content = bytes(maker.quantize(enable_progress_bar=False, enable_progress_report=False).quantized_model)
    kept = [name for name in layers if name in options.keep]
    return content, {"quantization": {"scheme": _SCHEME, "num_layers": len(chosen), "kept": kept}}


def halve_constants(content: bytes) -> bytes:
    """The model with its larger constants in fp16, widened by an operator that a runtime folds when it loads the file.

    Biases are left: XNNPACK takes none of another type.
    """
    model = parse(content)
    halved = set(_find_halved(model))
    for buffer in halved:
        values = np.frombuffer(bytes(model.buffers[buffer].data), np.float32)
        model.buffers[buffer].data = np.frombuffer(values.astype(np.float16).tobytes(), np.uint8)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 3  # the first that takes fp16
    model.operatorCodes.append(code)
    for graph in model.subgraphs:
        _widen(graph, halved, len(model.operatorCodes) - 1)
    return build(model)


def _find_halved(model: Any) -> Iterator[int]:
    """The buffers of which every tensor is a constant of size."""
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    small = {one.buffer for one in tensors if one.type != _FLOAT or one.shape is None or len(one.shape) < 2}
    for index in sorted({one.buffer for one in tensors} - small):
        data = model.buffers[index].data
        if data is not None and len(data) >= 4 * _MIN_ELEMENTS:
            yield index


def _widen(graph: Any, halved: set[int], code: int) -> None:
    """Let what reads a constant of `halved` read a widened copy."""
    renamed, nodes = {}, []
    for index in (i for i, one in enumerate(list(graph.tensors)) if one.buffer in halved):
        narrow, wide = graph.tensors[index], schema.TensorT()
        wide.shape, wide.type, wide.buffer, wide.hasRank = narrow.shape, _FLOAT, 0, narrow.hasRank
        wide.name, narrow.type = narrow.name + b"/wide", _HALF
        renamed[index] = len(graph.tensors)
        graph.tensors.append(wide)
        node = schema.OperatorT()
        node.opcodeIndex, node.inputs, node.outputs = code, [index], [renamed[index]]
        nodes.append(node)
    for node in graph.operators:
        node.inputs = [renamed.get(int(index), int(index)) for index in node.inputs]
    graph.operators = [*nodes, *graph.operators]
