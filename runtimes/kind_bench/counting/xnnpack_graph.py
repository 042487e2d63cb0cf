"""A part of an ExecuTorch program that XNNPACK runs: its nodes and values, from the bytes that the delegate is given.

The payload is a header, a flatbuffer by XNNPACK's schema, and constants; newer ones keep constants in the program's
named data. `flatc` and the schema are those of the executorch package that wrote it.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kind_bench.counting.ledger import Ledger, TensorSize
from kind_bench.counting.op_classes import OpClasses
from kind_bench.counting.work import ComputePrecision, OpWork
from kind_core.errors import BundleError, TargetError
from kind_runtimes.quiet import without_import_noise

with without_import_noise():
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader, _get_schema_bytes
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

BACKEND = "XNNPACK"
_NONE = 0xFFFFFFFF  # XNNPACK's id of no value
_CLASSES = OpClasses(
    {
        "linear": "XNNFullyConnected XNNBatchMatrixMultiply",
        "convolution": "XNNConv2d XNNDepthwiseConv2d",
        "attention": "XNNScaledDotProductAttention",
        "softmax": "XNNSoftmax",
        "elementwise": (
            "XNNAbs XNNAdd XNNCeiling XNNClamp XNNCos XNNDiv XNNELU XNNExp XNNFloor XNNGelu XNNHardswish XNNLeakyReLU "
            "XNNLog XNNMaximum XNNMinimum XNNMultiply XNNNegate XNNPReLU XNNReciprocalSquareRoot XNNSigmoid XNNSin "
            "XNNSquare XNNSquareRoot XNNSubtract XNNTanh"
        ),
        "layout": (
            "XNNConcatenate2 XNNConcatenate3 XNNConcatenate4 XNNConcatenate5 XNNCopy XNNStaticConstantPad "
            "XNNStaticReshape XNNStaticSlice XNNStaticTranspose"
        ),
        "quantize": "XNNConvert",
        "other": "XNNAvgPooling2d XNNGlobalAvgPooling2d XNNMaxPooling2d XNNStaticResizeBilinear2D",
    },
    __name__,
)
_NUM_READS = {f"XNNConcatenate{n}": n for n in (2, 3, 4, 5)}  # fields after these are not set
_READS = """
    input_id input1_id input2_id input3_id input4_id input5_id filter_id bias_id query_id key_id value_id scale_id
    mask_id
"""
_BITS = {
    **dict.fromkeys(("fp32", "pfp32", "qint32", "qcint32", "int32"), 32),
    **dict.fromkeys(("fp16", "bf16"), 16),
    **dict.fromkeys(("qint8", "quint8", "qcint8", "qdint8", "qpint8"), 8),
    **dict.fromkeys(("qcint4", "qbint4"), 4),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Value:
    name: str
    kind: str  # fp32, qdint8, ...
    size: TensorSize
    buffer: int  # of a constant; 0 is none


class XnnpackGraph:
    """One delegate of a program. `named_data` are the program's constants by key."""

    def __init__(self, payload: bytes, label: str, named_data: Mapping[str, memoryview]) -> None:
        header, self._graph = _parse(payload)
        self._label = label
        self._named_data = named_data
        self._inline = memoryview(payload)[header.constant_data_offset :]
        self._values: dict[int, _Value] = {}

    def enter(self, ledger: Ledger, externals: Sequence[str]) -> None:
        """Add constants and nodes to the books; `externals` are the names of what the delegate is called with."""
        for one in self._graph["xvalues"]:
            self._add_value(ledger, one["xvalue_union"], externals)
        for index, one in enumerate(self._graph["xnodes"]):
            self._add_node(ledger, index, one["xnode_union_type"], one["xnode_union"])

    def _add_value(self, ledger: Ledger, value: dict[str, Any], externals: Sequence[str]) -> None:
        tensor = value.get("tensor_value", value)  # a quantised value has the tensor inside
        kind = tensor["datatype"].removeprefix("xnn_datatype_")
        if kind not in _BITS:
            raise TargetError(f"XNNPACK value {tensor['id_out']} has the unknown type {kind}", "report it")
        external, ident = tensor["external_id"], tensor["id_out"]
        is_external = external != _NONE and external < len(externals)
        name = externals[external] if is_external else f"{self._label}/{ident}"
        size = TensorSize(shape=tuple(tensor.get("dims", ())), bits=_BITS[kind])
        buffer, scales = tensor["constant_buffer_idx"], value.get("quant_params", {}).get("scale_buffer_idx", 0)
        self._values[ident] = _Value(name=name, kind=kind, size=size, buffer=buffer)
        if buffer:
            entries = [self._graph["constant_data"][index] for index in (buffer, scales) if index]
            identity = entries[0].get("named_key") or f"{self._label} constant {buffer}"
            ledger.add_constant(name, size, identity=identity, stored=sum(one["size"] for one in entries))

    def _add_node(self, ledger: Ledger, index: int, op_type: str, fields: dict[str, Any]) -> None:
        op_class = _CLASSES.find(op_type, f"XNNPACK node {index} has type {op_type}, which")
        idents = [fields[key] for key in _READS.split() if fields.get(key, _NONE) != _NONE][: _NUM_READS.get(op_type)]
        reads, result = [self._values[ident] for ident in idents], self._values[fields["output_id"]]
        if op_type == "XNNFullyConnected" and self._is_mean(reads[1]):
            op_class = "norm"
        elif op_class == "linear":
            op_class = ledger.product_class(*(one.name for one in reads[:2]))
        ledger.add(
            OpWork(
                name=f"{self._label}/node {index}",
                op_type=op_type,
                op_class=op_class,
                backend=BACKEND,
                precision=_precision(reads, result),
                flops=_count_flops(op_type, reads, result),
            ),
            [one.name for one in reads],
            {result.name: result.size},
            has_bias=fields.get("bias_id", _NONE) != _NONE,
            is_view=op_type == "XNNStaticReshape",
        )

    def _is_mean(self, factor: _Value) -> bool:
        """Whether a product takes the mean: a constant vector of equal numbers, as a LayerNorm is written."""
        if factor.kind not in ("fp32", "fp16") or 1 not in factor.size.shape:
            return False
        entry = self._graph["constant_data"][factor.buffer]
        held, start = (
            (self._named_data[entry["named_key"]], 0) if entry.get("named_key") else (self._inline, entry["offset"])
        )
        content, width = bytes(held[start : start + entry["size"]]), factor.size.bits // 8
        return content == content[:width] * (len(content) // width)


def _precision(reads: Sequence[_Value], result: _Value) -> ComputePrecision:
    kinds = {one.kind for one in reads}
    if "qdint8" in kinds or "qint8" in kinds:
        return "int4" if kinds & {"qbint4", "qcint4"} else "int8"
    return "fp16" if result.kind == "fp16" else "fp32"


def _count_flops(op_type: str, reads: Sequence[_Value], result: _Value) -> int:
    elements = result.size.elements
    if op_type == "XNNFullyConnected":
        return 2 * elements * reads[1].size.elements // result.size.shape[-1]
    if op_type == "XNNBatchMatrixMultiply":
        return 2 * elements * reads[0].size.shape[-1]
    if op_type in ("XNNConv2d", "XNNDepthwiseConv2d"):
        # filters are (out, height, width, in), or (1, height, width, out) a channel each
        _, height, width, channels = reads[1].size.shape
        return 2 * elements * height * width * (1 if op_type == "XNNDepthwiseConv2d" else channels)
    if op_type == "XNNScaledDotProductAttention":
        query, key, value = (one.size for one in reads[:3])
        return 2 * query.shape[-2] * (key.elements + value.elements)
    return 0


def _parse(payload: bytes) -> tuple[Any, dict[str, Any]]:
    try:
        header = XNNHeader.from_bytes(payload[: XNNHeader.EXPECTED_LENGTH])
    except ValueError as error:
        raise BundleError(f"a delegate is no XNNPACK payload: {error}", "export the bundle again") from error
    start = header.flatbuffer_offset
    with tempfile.TemporaryDirectory() as folder:
        schema, binary = Path(folder) / "schema.fbs", Path(folder) / "graph.bin"
        schema.write_bytes(_get_schema_bytes())
        binary.write_bytes(payload[start : start + header.flatbuffer_size])
        _flatc_decompile(folder, str(schema), str(binary))
        text = (Path(folder) / "graph.json").read_text()
        # flatc's word for the bounds of a ReLU is no JSON, but json takes a longer one
        return header, json.loads(re.sub(r"(: -?)inf(,?\n)", r"\1Infinity\2", text))
