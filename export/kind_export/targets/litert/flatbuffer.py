"""The file that the converter made: named as the manifest names it, with its texts, and nothing of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools.flatbuffer_utils import read_model_from_bytearray

from kind_core.errors import ExportError
from kind_export.targets.target import Lowering

_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16  # of weights in a file, which the runtime maps and reads with vector instructions


def product_name(program: str, layer: str) -> str:
    """The tensor that a layer of a program gives."""
    return f"{program}/{layer}"


def pack(content: bytes, texts: Mapping[str, str]) -> bytes:
    """A model as it is shipped, `texts` as its metadata."""
    model = parse(content)
    for name, text in texts.items():
        _add_metadata(model, name, text.encode())
    model.description = b"kind-export"
    return build(model)


def parse(content: bytes) -> Any:
    """A model as the objects of its schema, buffers that lie behind it in their places."""
    return read_model_from_bytearray(content)


class NamedModel:
    """A converted model whose signatures are `lowerings`, in order.

    Weights have the names of the modules' tensors, products those of their layers; the converter's long names of
    everything else, which are paths through the source, are numbers.
    """

    def __init__(self, content: bytes, lowerings: Sequence[Lowering]) -> None:
        self._model = parse(content)
        self._graphs: dict[str, Any] = {}
        self._buffers: dict[bytes, int] = {}
        self.products: set[str] = set()
        for lowering in lowerings:
            signature = self._find_signature(lowering.name)
            graph = self._graphs[lowering.name] = self._model.subgraphs[signature.subgraphIndex]
            graph.name = lowering.name.encode()
            self._name_tensors(graph, lowering)
            self._name_ends(graph, signature, lowering)
        self._drop_unused()

    def pack(self) -> bytes:
        """The model's file, for the tools that come next."""
        return build(self._model)

    def count_operators(self, name: str) -> int:
        """How many operators the signature `name` has."""
        return len(self._graphs[name].operators)

    def _find_signature(self, name: str) -> Any:
        return next(one for one in self._model.signatureDefs if one.signatureKey == name.encode())

    def _name_tensors(self, graph: Any, lowering: Lowering) -> None:
        known = {_key(array): name for name, array in _constants(lowering)}
        for index, tensor in enumerate(graph.tensors):
            data = self._model.buffers[tensor.buffer].data
            content = b"" if data is None else bytes(data)
            name = known.get(content)
            tensor.name = (name or f"{lowering.name}/{index}").encode()
            if name is not None:  # what several signatures have in common is stored once
                tensor.buffer = self._buffers.setdefault(content, tensor.buffer)
        layers = {name.removesuffix(".weight") for name in known.values() if name.endswith(".weight")}
        for operator in graph.operators:
            weights = [graph.tensors[i].name.decode().removesuffix(".weight") for i in operator.inputs if i >= 0]
            layer = next((one for one in weights if one in layers), None)
            if layer is not None:
                product = product_name(lowering.name, layer)
                graph.tensors[operator.outputs[0]].name = product.encode()
                self.products.add(product)

    def _drop_unused(self) -> None:
        tensors = (tensor for graph in self._model.subgraphs for tensor in graph.tensors)
        used = {one.buffer for one in (*tensors, *(self._model.metadata or ()))}
        for index, buffer in enumerate(self._model.buffers):
            buffer.data = buffer.data if index in used else None

    def _name_ends(self, graph: Any, signature: Any, lowering: Lowering) -> None:
        for specs, maps in ((lowering.inputs, signature.inputs), (lowering.outputs, signature.outputs)):
            if len(specs) != len(maps):
                held = [one.name.decode() for one in maps]
                raise ExportError(
                    f"LiteRT kept {', '.join(held)} of the tensors {', '.join(s.name for s in specs)}",
                    "please report it with this command",
                )
            # the converter numbers them in the order of the module's: args_0, output_0
            for one in maps:
                spec = specs[int(one.name.decode().rpartition("_")[2])]
                one.name = spec.name.encode()
                graph.tensors[one.tensorIndex].name = f"{lowering.name}/{spec.name}".encode()


def _add_metadata(model: Any, name: str, text: bytes) -> None:
    entry, buffer = schema.MetadataT(), schema.BufferT()
    buffer.data = np.frombuffer(text, np.uint8)
    entry.name, entry.buffer = name.encode(), len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]


def build(model: Any) -> bytes:
    """The file of a model that `parse` gave."""
    builder = _AlignedBuilder(1024)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


class _AlignedBuilder(flatbuffers.Builder):
    """Aligns every vector of bytes as the schema asks for weights, which its generated Python does not."""

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:  # noqa: N802
        return super().StartVector(elemSize, numElems, _ALIGNMENT if elemSize == 1 else alignment)


def _constants(lowering: Lowering) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of a module by name, in each layout that the converter may give them."""
    for name, tensor in lowering.module.state_dict().items():
        array = tensor.detach().numpy()
        if not array.size:  # a result has no numbers in the file either, and would be called like it
            continue
        yield name, array
        if array.ndim == 2:
            yield name, array.T
        elif array.ndim == 4:
            yield name, array.transpose(0, 2, 3, 1)


def _key(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()
