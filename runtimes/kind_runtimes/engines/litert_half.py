"""A LiteRT program with each result rounded to fp16, as a GPU gives it.

LiteRT's kernels of a CPU compute in fp32, where nothing overflows. Here two conversions come after every node, so that
what passes between two of them is rounded and may become infinite there. Inside a node sums are in fp32.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from kind_runtimes.engines.litert import IDENTIFIER, read_model

_FLOAT, _HALF = schema.TensorType.FLOAT32, schema.TensorType.FLOAT16


def round_results(file: Path) -> bytes:
    """The program `file` with its inputs and the result of every node rounded."""
    model = read_model(file)
    cast = schema.OperatorCodeT()
    cast.builtinCode = cast.deprecatedBuiltinCode = schema.BuiltinOperator.CAST
    model.operatorCodes.append(cast)
    for graph in model.subgraphs:
        constants = {i for i, one in enumerate(graph.tensors) if model.buffers[one.buffer].data is not None}
        graph.operators = list(_Rounding(graph, len(model.operatorCodes) - 1, constants).nodes())
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


class _Rounding:
    """The conversions of one graph, by an operator of index `code`."""

    def __init__(self, graph: Any, code: int, constants: set[int]) -> None:
        self._graph, self._code, self._constants = graph, code, constants

    def nodes(self) -> Iterator[Any]:
        """The nodes in order, those that round between them."""
        rounded = {}
        for index in filter(self._is_wide, map(int, self._graph.inputs)):
            half, rounded[index] = self._add_tensor(index, _HALF), self._add_tensor(index, _FLOAT)
            yield from (self._cast(index, half), self._cast(half, rounded[index]))
        for node in self._graph.operators:
            reads = [int(index) for index in node.inputs]
            node.inputs = [rounded.get(index, index) for index in reads]
            if all(index in self._constants for index in reads):
                self._constants.update(map(int, node.outputs))  # widened weights: they are fp16 already
                yield node
            else:
                yield from self._round_outputs(node)

    def _round_outputs(self, node: Any) -> Iterator[Any]:
        """`node`, and what brings its results, rounded, where they were read before."""
        casts = []
        outputs = [int(index) for index in node.outputs]
        for place, index in enumerate(outputs):
            if self._is_wide(index):
                outputs[place], half = self._add_tensor(index, _FLOAT), self._add_tensor(index, _HALF)
                casts += [self._cast(outputs[place], half), self._cast(half, index)]
        node.outputs = outputs
        yield from (node, *casts)

    def _is_wide(self, index: int) -> bool:
        return bool(self._graph.tensors[index].type == _FLOAT)

    def _add_tensor(self, index: int, kind: int) -> int:
        """A tensor of the shape of tensor `index`."""
        like, tensor = self._graph.tensors[index], schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer, tensor.hasRank = like.shape, kind, 0, like.hasRank
        tensor.name = f"rounding/{len(self._graph.tensors)}".encode()
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _cast(self, source: int, target: int) -> Any:
        node = schema.OperatorT()
        node.opcodeIndex, node.inputs, node.outputs = self._code, [source], [target]
        return node
