"""ONNX by torch.onnx's exporter, for onnxruntime on any system and in browsers."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import onnx
import torch
from torch.onnx._internal.exporter._registration import ONNXRegistry

from kind_export.compact.step import GraphStyle
from kind_export.precision import quantizable_layers
from kind_export.target_rows import TARGET_ROWS
from kind_export.targets.done_once import done_once, replaced
from kind_export.targets.onnx.branches import merge_branches
from kind_export.targets.onnx.quantization import find_products, quantize
from kind_export.targets.target import Facts, Lowering, TargetOptions, check_size, one_line_errors

ROW = TARGET_ROWS["onnx"]
STYLE = GraphStyle(attention="fused")
OPSET = 20  # the first with Gelu
# torch.onnx parses the source of its five hundred translations for every program, a third of the time that one takes
_read_registry = cache(ONNXRegistry.from_torchlib)


def lower(lowering: Lowering, file: Path, options: TargetOptions) -> Facts:
    """Export `lowering` with named inputs and outputs and nothing in the file that depends on this machine."""
    model, facts = _export(lowering, options)
    _write(model, file, options.describe(lowering))
    return {"opset": OPSET, "num_ops": len(model.graph.node), **facts}


def lower_pair(
    step: Lowering, unguided: Lowering, is_guided: Sequence[bool], file: Path, options: TargetOptions
) -> tuple[Facts, dict[str, str | None]]:
    """A guided step and its unguided twin as branches of one graph, which looks up by itself which one runs."""
    (guided_model, facts), (unguided_model, _) = (_export(one, options) for one in (step, unguided))
    num_ops = {"num_ops": len(guided_model.graph.node), "num_ops_unguided": len(unguided_model.graph.node)}
    _write(merge_branches(guided_model, unguided_model, is_guided), file, options.describe(step))
    return {"opset": OPSET, **num_ops, **facts}, {step.name: None}


def _export(lowering: Lowering, options: TargetOptions) -> tuple[onnx.ModelProto, Facts]:
    with _quiet(), torch.no_grad(), done_once(), kept_registry(), one_line_errors("torch.onnx", lowering):
        program = torch.onnx.export(
            lowering.module,
            lowering.example,
            dynamo=True,
            opset_version=OPSET,
            input_names=[s.name for s in lowering.inputs],
            output_names=[s.name for s in lowering.outputs],
            verbose=False,
        )
        assert program is not None
        model, facts = program.model_proto, Facts()
        if options.precision in ("int8", "int4"):
            products = find_products(model, quantizable_layers(lowering.module))
            model, facts = quantize(model, products, options.precision, options.keep)
    _strip(model)
    return model, facts


def _write(model: onnx.ModelProto, file: Path, about: Mapping[str, str]) -> None:
    check_size(sum(math.prod(t.dims) * _itemsize(t) for t in model.graph.initializer), ROW.max_bytes, file.name)
    onnx.helper.set_model_props(model, dict(about))
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString(deterministic=True))


def _itemsize(tensor: onnx.TensorProto) -> int:
    return int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _strip(model: onnx.ModelProto) -> None:
    """Remove stack traces and other metadata: they hold absolute paths of the exporting machine."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
    for function in model.functions:
        function.ClearField("metadata_props")
        for node in function.node:
            node.ClearField("metadata_props")
    del graph.value_info[:]
    graph.name = "kind"
    model.producer_name, model.producer_version = "kind-export", ""


def kept_registry() -> contextlib.AbstractContextManager[None]:
    """torch.onnx within this takes the registry that was read before; nothing may be registered there."""
    return replaced(ONNXRegistry, "from_torchlib", staticmethod(_read_registry))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress lines off stdout, where results go."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
