"""One ONNX graph of two: which one runs is looked up by `step_index`, and equal weights are stored once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_PREFIX = "otherwise/"


def merge_branches(then: onnx.ModelProto, otherwise: onnx.ModelProto, mask: Sequence[bool]) -> onnx.ModelProto:
    """`then` where `mask[step_index]`, else `otherwise`; both give the same outputs of inputs that `then` has all of.

    An app sees a program like any other: the choice is inside.
    """
    inputs = {value.name for value in then.graph.input}
    digests = {tensor.name: _digest(tensor) for tensor in otherwise.graph.initializer}
    _rename(otherwise.graph, inputs, digests, {_digest(tensor): tensor.name for tensor in then.graph.initializer})
    known = {tensor.name for tensor in then.graph.initializer}
    weights = [*then.graph.initializer, *(t for t in otherwise.graph.initializer if t.name not in known)]
    look_up = helper.make_node("Gather", ["is_guided", "step_index"], ["is_guided_now"], "look_up_branch")
    branch = helper.make_node(
        "If",
        look_up.output,
        [value.name for value in then.graph.output],
        "guided_or_not",
        then_branch=_as_branch(then.graph, "then"),
        else_branch=_as_branch(otherwise.graph, "otherwise"),
    )
    merged = onnx.ModelProto()
    merged.CopyFrom(then)
    del merged.graph.node[:], merged.graph.initializer[:]
    merged.graph.node.extend([look_up, branch])
    table = numpy_helper.from_array(np.array(mask, dtype=bool), "is_guided")
    merged.graph.initializer.extend([*weights, table])
    domains = {entry.domain for entry in merged.opset_import}
    merged.opset_import.extend(entry for entry in otherwise.opset_import if entry.domain not in domains)
    return merged


def _as_branch(graph: onnx.GraphProto, name: str) -> onnx.GraphProto:
    """The nodes of `graph` as a branch: inputs and weights come from outside, outputs get names of their own."""
    outputs = []
    branch = onnx.GraphProto(name=name)
    branch.node.extend(graph.node)
    for value in graph.output:
        inner = f"{name}/{value.name}"
        for node in branch.node:
            node.output[:] = [inner if one == value.name else one for one in node.output]
            node.input[:] = [inner if one == value.name else one for one in node.input]
        output = onnx.ValueInfoProto()
        output.CopyFrom(value)
        output.name = inner
        outputs.append(output)
    branch.output.extend(outputs)
    return branch


def _rename(graph: onnx.GraphProto, inputs: set[str], digests: dict[str, str], known: dict[str, str]) -> None:
    """Give all names of `graph` a prefix but those of inputs, outputs and weights that `known` has, by digest."""
    fixed = inputs | {value.name for value in graph.output} | {""}
    names = {name: known.get(digest, _PREFIX + name) for name, digest in digests.items()}

    def renamed(name: str) -> str:
        return name if name in fixed else names.get(name, _PREFIX + name)

    for node in graph.node:
        node.name = _PREFIX + node.name
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
    for tensor in graph.initializer:
        tensor.name = names[tensor.name]


def _digest(tensor: onnx.TensorProto) -> str:
    kind = f"{TensorProto.DataType.Name(tensor.data_type)}{list(tensor.dims)}"
    array = numpy_helper.to_array(tensor)
    return hashlib.sha256(kind.encode() + array.tobytes()).hexdigest()
