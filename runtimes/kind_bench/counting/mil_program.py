"""The ML program of a Core ML package, op by op, by its specification; the weights stay on disk.

What runs where is Apple's to decide when a model is loaded, and only a device can tell. `backend` says what the rules
that coremltools documents allow: the Neural Engine computes in fp16, on tensors of five axes at most, and looks up no
rows by an index that is known at run time only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kind_bench.counting.ledger import Ledger, TensorSize
from kind_bench.counting.op_classes import OpClasses
from kind_bench.counting.work import OpClass, OpWork, ProgramWork
from kind_runtimes.coreml.package import CoreMLPackage
from kind_runtimes.manifest import ProgramSpec
from kind_runtimes.quiet import import_coremltools

NEURAL_ENGINE = "Neural Engine (by rule)"
OTHER_UNIT = "CPU or GPU (by rule)"
_MAX_AXES = 5
_PARAMETERS = ("axis", "indices", "transpose_x", "transpose_y")  # how an op works, not what on
_VIEWS = ("reshape", "expand_dims", "squeeze", "identity")
_CLASSES = OpClasses(
    {
        "linear": "linear matmul",
        "convolution": "conv",
        "attention": "scaled_dot_product_attention",
        "norm": "layer_norm batch_norm instance_norm l2_norm",
        "softmax": "softmax",
        "elementwise": (
            "abs add ceil clip cos equal erf exp floor floor_div gelu greater greater_equal inverse less less_equal "
            "log logical_and logical_not logical_or maximum minimum mod mul not_equal pow real_div relu round rsqrt "
            "select sigmoid silu sin softplus sqrt square sub tanh"
        ),
        "lookup": "gather gather_along_axis gather_nd",
        "layout": (
            "concat pad pixel_shuffle slice_by_index slice_by_size split stack tile transpose reshape expand_dims "
            "squeeze identity"
        ),
        "quantize": "cast quantize dequantize",
        "other": (
            "avg_pool fill max_pool range_1d reduce_max reduce_mean reduce_min reduce_sum resize resize_bilinear "
            "resize_nearest_neighbor shape upsample_bilinear upsample_nearest_neighbor"
        ),
    },
    __name__,
)


def count(file: Path, spec: ProgramSpec) -> ProgramWork:
    """Count one function of an .mlpackage: the program's own, or that of the first class, or the default."""
    functions = spec.class_functions or {}
    package = CoreMLPackage.open(file, spec.function or next(iter(functions.values()), None))
    function = package.spec.mlProgram.functions[package.function]
    walk = _Walk(block=function.block_specializations[function.opset])
    for value in function.inputs:
        walk.ledger.add_input(value.name, walk.read_type(value))
    for op in walk.block.operations:
        walk.add_op(op)
    return walk.ledger.finish("coreml", spec.name, walk.block.outputs)


@dataclass(kw_only=True, slots=True)
class _Walk:
    block: Any
    ledger: Ledger = field(default_factory=Ledger)
    types: dict[str, str] = field(default_factory=dict)  # FLOAT16, INT32, ...
    flags: dict[str, bool] = field(default_factory=dict)  # constants that are one truth value

    def add_op(self, op: Any) -> None:
        if op.type == "const":
            return self._add_constant(op.outputs[0], op.attributes["val"])
        operands = {parameter: list(self._operands(op, parameter, one)) for parameter, one in op.inputs.items()}
        reads = [name for names in operands.values() for name in names]
        if op.type.startswith("constexpr_"):
            parts = [self._add_part(op, name, value) for name, value in op.attributes.items() if _is_stored(value)]
            return self.ledger.fold(op.outputs[0].name, self.read_type(op.outputs[0]), [*reads, *parts])
        sizes = [self.read_type(value) for value in op.outputs]
        writes = [value.name for value in op.outputs]
        obstacle = self._find_obstacle(op, operands, writes)
        self.ledger.add(
            OpWork(
                name=writes[0],
                op_type=op.type,
                op_class=self._classify(op, operands),
                backend=OTHER_UNIT if obstacle else NEURAL_ENGINE,
                precision="fp16" if self.types[writes[0]] == "FLOAT16" else "fp32",
                flops=self._count_flops(op, operands, sizes[0].elements),
                obstacle=obstacle,
            ),
            _tensor_operands(operands),
            dict(zip(writes, sizes, strict=True)),
            has_bias=bool(operands.get("bias")),
            is_view=op.type in _VIEWS,
        )
        return None

    def _add_constant(self, output: Any, value: Any) -> None:
        """A tensor in the weight file; numbers in the program's text are parameters of their operators, not weights."""
        if value.type.tensorType.dataType == _data_types().STRING:
            self.ledger.add_constant(output.name, TensorSize(shape=(), bits=0))
            return
        size = self.read_type(output)
        is_stored = _is_stored(value)
        if not is_stored and value.immediateValue.tensor.bools.values:
            self.flags[output.name] = bool(value.immediateValue.tensor.bools.values[0])
        identity = f"blob at {value.blobFileValue.offset}" if is_stored else output.name
        self.ledger.add_constant(output.name, size, identity=identity, stored=None if is_stored else 0)

    def _operands(self, op: Any, parameter: str, argument: Any) -> Iterator[str]:
        """The names of the tensors that an operand is; those of compressed weights are written where they are read."""
        for binding in argument.arguments:
            if binding.WhichOneof("binding") == "name":
                yield binding.name
            elif _is_stored(binding.value):
                yield self._add_part(op, parameter, binding.value)

    def _add_part(self, op: Any, parameter: str, value: Any) -> str:
        """A constant without a name of its own: an input of an op or, before iOS 18, an attribute."""
        name = f"{op.outputs[0].name}/{parameter}"
        identity = f"blob at {value.blobFileValue.offset}"
        self.ledger.add_constant(name, _size_of(value.type.tensorType), identity=identity)
        return name

    def _classify(self, op: Any, operands: dict[str, list[str]]) -> OpClass:
        described = f"Core ML op {op.outputs[0].name!r} has type {op.type}, which"
        op_class = _CLASSES.find("nested blocks" if op.blocks else op.type, described)
        if op.type == "matmul":
            return self.ledger.product_class(*operands["x"], *operands["y"])
        return op_class

    def _count_flops(self, op: Any, operands: dict[str, list[str]], elements: int) -> int:
        shapes = {name: self.ledger[names[0]].shape for name, names in operands.items() if names}
        if op.type == "linear":
            return 2 * elements * shapes["weight"][1]
        if op.type == "matmul":
            is_transposed = any(self.flags.get(name, False) for name in operands.get("transpose_x", ()))
            return 2 * elements * shapes["x"][-2 if is_transposed else -1]
        if op.type == "conv":
            return 2 * elements * math.prod(shapes["weight"][1:])
        if op.type == "scaled_dot_product_attention":
            keys = math.prod(shapes["query"][:-1]) * shapes["key"][-2]
            return 2 * keys * (shapes["query"][-1] + shapes["value"][-1])
        return 0

    def _find_obstacle(self, op: Any, operands: dict[str, list[str]], writes: Sequence[str]) -> str:
        """Which rule keeps an op from the Neural Engine."""
        if _CLASSES.get(op.type) == "lookup" and not all(map(self.ledger.is_constant, operands.get("indices", ()))):
            return "a look-up by an index that is known at run time only"
        kinds = {self.types[name] for name in writes}
        if "INT32" in kinds:
            return "32-bit integers"
        tensors = [*_tensor_operands(operands), *writes]
        if "FLOAT32" in {self.types.get(name) for name in tensors}:
            return "fp32"
        axes = max(len(self.ledger[name].shape) for name in tensors if name in self.ledger)
        return f"{axes} axes, more than {_MAX_AXES}" if axes > _MAX_AXES else ""

    def read_type(self, value: Any) -> TensorSize:
        tensor = value.type.tensorType
        self.types[value.name] = _data_types().Name(tensor.dataType)
        return _size_of(tensor)


def _tensor_operands(operands: dict[str, list[str]]) -> list[str]:
    """The operands that an op reads numbers from, what is looked up in or multiplied first."""
    first = [parameter for parameter in ("x", "y", "weight", "bias") if parameter in operands]
    rest = [parameter for parameter in operands if parameter not in first and parameter not in _PARAMETERS]
    return [name for parameter in (*first, *rest) for name in operands[parameter]]


def _is_stored(value: Any) -> bool:
    """Whether a value lies in the weight file."""
    return bool(value.WhichOneof("value") == "blobFileValue")


def _size_of(tensor: Any) -> TensorSize:
    kind = _data_types().Name(tensor.dataType)
    bits = 8 if kind == "BOOL" else int((re.findall(r"\d+", kind) or ["0"])[0])
    return TensorSize(shape=tuple(one.constant.size for one in tensor.dimensions), bits=bits)


def _data_types() -> Any:
    return import_coremltools().proto.MIL_pb2.DataType
