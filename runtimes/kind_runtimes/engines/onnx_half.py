"""An ONNX graph run node by node, each result in the type that the graph gives it.

onnxruntime's CPU kernels for fp16 are few: it widens whole stretches of a graph to fp32, where nothing overflows. Here
every node is a session of its own, so what passes between two nodes is rounded to fp16 and may become infinite there,
as on a device. Inside a node sums are in fp32, which is what GPUs accumulate a product in and what ONNX prescribes for
LayerNormalization (`stash_type` 1). Attention as one operator is taken apart, because its scores are a result too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from kind_core.errors import TargetError
from kind_runtimes.engines.runtime import Arrays, check_inputs
from kind_runtimes.manifest import ProgramSpec


class NodeByNodeProgram:
    """An .onnx file whose nodes run one by one; checks results, and is several times slower than the whole."""

    def __init__(self, file: Path, spec: ProgramSpec) -> None:
        self._spec = spec
        self._model = onnx.load(file)
        self._weights = {tensor.name: tensor for tensor in self._model.graph.initializer}
        self._nodes: dict[str, _Node] = {}
        self.engine = f"onnxruntime {onnxruntime.__version__} node by node with each result rounded to fp16"

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        check_inputs(inputs, self._spec)
        values = dict(inputs)
        kept = [s.name for s in self._spec.outputs]
        self._walk(self._model.graph.node, values, kept)
        return {name: values[name] for name in kept}

    def _walk(self, nodes: Iterable[NodeProto], values: Arrays, kept: Iterable[str]) -> None:
        """Run `nodes` in order on `values`, which they add to."""
        ordered = list(nodes)
        last_use = {name: i for i, node in enumerate(ordered) for name in node.input}
        own = {name for node in ordered for name in node.output} - set(kept)
        for i, node in enumerate(ordered):
            self._run(node, values)
            for name in {name for name in (*node.input, *node.output) if name in own and last_use.get(name, -1) <= i}:
                values.pop(name, None)

    def _run(self, node: NodeProto, values: Arrays) -> None:
        if node.op_type == "If":
            self._branch(node, values)
            return
        if node.output[0] not in self._nodes:
            self._nodes[node.output[0]] = _Node(node, self._weights, self._model)
        values |= self._nodes[node.output[0]](values)

    def _branch(self, node: NodeProto, values: Arrays) -> None:
        chosen = "then_branch" if values[node.input[0]].all() else "else_branch"
        graph = next(one.g for one in node.attribute if one.name == chosen)
        inner = [value.name for value in graph.output]
        self._walk(graph.node, values, inner)
        values |= {name: values.pop(one) for name, one in zip(node.output, inner, strict=True)}


class _Node:
    """One node and the weights that it reads, as a model of its own; it is opened for the types of its first inputs."""

    def __init__(self, node: NodeProto, weights: Mapping[str, TensorProto], model: onnx.ModelProto) -> None:
        self._node = node
        self._weights = [weights[name] for name in dict.fromkeys(node.input) if name in weights]
        self._inputs = [name for name in dict.fromkeys(node.input) if name and name not in weights]
        self._opsets = list(model.opset_import)
        self._session: Any = None

    def __call__(self, values: Mapping[str, np.ndarray]) -> Arrays:
        if self._node.op_type == "MultiHeadAttention":
            return {self._node.output[0]: _attend(self._node, values)}
        inputs = {name: values[name] for name in self._inputs}
        if self._session is None:
            self._session = self._open(inputs)
        return dict(zip(self._node.output, self._session.run(None, inputs), strict=True))

    def _open(self, inputs: Mapping[str, np.ndarray]) -> Any:
        kinds = {name: helper.np_dtype_to_tensor_dtype(one.dtype) for name, one in inputs.items()}
        given = [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
        # an output without a type has the one that onnxruntime infers
        outputs = [ValueInfoProto(name=name) for name in self._node.output]
        graph = helper.make_graph([self._node], "node", given, outputs, initializer=self._weights)
        model = helper.make_model(graph, opset_imports=self._opsets, ir_version=10)
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        return onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])


def _attend(node: NodeProto, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """onnxruntime's operator, (halves, tokens, hidden), in parts: scores and probabilities are rounded as well."""
    if len(node.input) != 3:
        raise TargetError(
            f"attention {node.name!r} takes {len(node.input)} inputs, expected q, k and v", "please report it"
        )
    settings = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    query, key, value = (_split_heads(values[name], settings["num_heads"]) for name in node.input)
    dtype = values[node.input[0]].dtype
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow is a result
        # the scale is applied to the sum, before it is rounded
        scores = (query @ key.swapaxes(2, 3) * np.float32(settings["scale"])).astype(dtype).astype(np.float32)
        exponentials = np.exp(scores - scores.max(-1, keepdims=True))
        shares = (exponentials / exponentials.sum(-1, keepdims=True)).astype(dtype).astype(np.float32)
        mixed: np.ndarray = (shares @ value).astype(dtype)
    return mixed.transpose(0, 2, 1, 3).reshape(values[node.input[0]].shape)


def _split_heads(joined: np.ndarray, num_heads: int) -> np.ndarray:
    halves, tokens, hidden = joined.shape
    heads = joined.reshape(halves, tokens, num_heads, hidden // num_heads)
    return heads.transpose(0, 2, 1, 3).astype(np.float32)
