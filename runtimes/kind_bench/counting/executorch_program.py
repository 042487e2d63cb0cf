"""A method of an ExecuTorch program: calls of portable kernels, and of delegates, of which every node is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kind_bench.counting.ledger import Ledger, TensorSize
from kind_bench.counting.op_classes import OpClasses
from kind_bench.counting.work import OpClass, OpWork, ProgramWork
from kind_bench.counting.xnnpack_graph import XnnpackGraph
from kind_core.errors import BundleError, TargetError
from kind_runtimes.engines.executorch import DEFAULT_METHOD
from kind_runtimes.manifest import ProgramSpec
from kind_runtimes.quiet import without_import_noise

with without_import_noise():
    from executorch.exir import schema
    from executorch.exir._serialize._flatbuffer_program import _flatbuffer_to_program
    from executorch.exir._serialize._program import _get_extended_header
    from executorch.exir.scalar_type import ScalarType

BACKEND = "portable"
_MAGIC = b"ET"  # after the flatbuffer's first offset; then the version of the format
_CLASSES = OpClasses(
    {
        "linear": "bmm linear mm",
        "norm": "native_layer_norm native_group_norm",
        "softmax": "_softmax",
        "elementwise": (
            "abs add clamp cos div eq exp gelu ge gt le log lt maximum minimum mul ne neg pow reciprocal relu "
            "remainder rsqrt sigmoid sin sqrt sub tanh where"
        ),
        "lookup": "embedding gather index index_select",
        "layout": (
            "cat clone _clone_dim_order constant_pad_nd expand_copy full permute_copy repeat select_copy slice_copy "
            "split_with_sizes_copy squeeze_copy stack t_copy transpose_copy unsqueeze_copy view_copy et_view"
        ),
        "quantize": "_to_copy _to_dim_order_copy",
        "other": "amax amin arange avg_pool2d max_pool2d mean sum upsample_nearest2d",
    },
    __name__,
)
_VIEWS = ("et_view",)
_BITS = {
    **dict.fromkeys((ScalarType.BYTE, ScalarType.CHAR, ScalarType.BOOL), 8),
    **dict.fromkeys((ScalarType.SHORT, ScalarType.HALF, ScalarType.BFLOAT16), 16),
    **dict.fromkeys((ScalarType.INT, ScalarType.FLOAT), 32),
    **dict.fromkeys((ScalarType.LONG, ScalarType.DOUBLE), 64),
}
_FLOATS = (ScalarType.FLOAT, ScalarType.HALF)
_OBSTACLES = {
    "lookup": "XNNPACK has no look-up of rows",
    "norm": "XNNPACK has no operator for it",
    "quantize": "XNNPACK's partitioner leaves out conversions between formats of numbers",
}


def count(file: Path, spec: ProgramSpec) -> ProgramWork:
    """Count one method of a .pte file: the program's own, or `forward`."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror}", "export the bundle again") from error
    program, segments = _parse(content, file)
    method = spec.function or DEFAULT_METHOD
    plan = next((one for one in program.execution_plan if one.name == method), None)
    if plan is None:
        held = ", ".join(one.name for one in program.execution_plan)
        raise BundleError(f"{file} has no method {method!r}, expected one of {held}", "export the bundle again")
    walk = _Walk(program=program, plan=plan, segments=segments)
    for call in (instruction.instr_args for chain in plan.chains for instruction in chain.instructions):
        walk.add_call(call)
    outputs = [name for index in plan.outputs for name in walk.tensors(index)]
    return walk.ledger.finish("executorch", spec.name, outputs, num_delegates=walk.num_delegate_calls)


@dataclass(kw_only=True, slots=True)
class _Walk:
    program: Any
    plan: Any
    segments: Sequence[memoryview]  # the parts of the file after its flatbuffer
    ledger: Ledger = field(default_factory=Ledger)
    num_delegate_calls: int = 0
    named_data: dict[str, memoryview] = field(init=False)  # constants by key

    def __post_init__(self) -> None:
        self.named_data = {one.key: self.segments[one.segment_index] for one in self.program.named_data or ()}
        for index, value in enumerate(self.plan.values):
            tensor = value.val
            # buffer 0 is that of tensors which memory is planned for
            if isinstance(tensor, schema.Tensor) and tensor.data_buffer_idx and tensor.allocation_info is None:
                self.ledger.add_constant(_name(index), _size_of(tensor), identity=f"buffer {tensor.data_buffer_idx}")
        for index in self.plan.inputs:
            if isinstance(self.plan.values[index].val, schema.Tensor):
                self.ledger.add_input(_name(index), _size_of(self.plan.values[index].val))

    def add_call(self, call: Any) -> None:
        if isinstance(call, schema.KernelCall):
            self._add_kernel(call)
        elif isinstance(call, schema.DelegateCall):
            self._add_delegate(call)
        elif not isinstance(call, schema.FreeCall):
            raise TargetError(
                f"the program has an instruction {type(call).__name__}, which has no rule to count it by", "report it"
            )

    def tensors(self, index: int) -> list[str]:
        """The names of the tensors in a value: one, several of a list, or none."""
        value = self.plan.values[index].val
        if isinstance(value, schema.Tensor):
            return [_name(index)]
        if isinstance(value, schema.TensorList | schema.OptionalTensorList):
            return [_name(item) for item in value.items if item >= 0]
        return []

    def _add_kernel(self, call: Any) -> None:
        operator = self.plan.operators[call.op_index]
        op_type = operator.name.rpartition("::")[2]
        op_class = kind = _CLASSES.find(op_type, f"portable kernel {operator.name!r}")
        operands = list(dict.fromkeys(name for index in call.args for name in self.tensors(index)))
        writes = [name for name in operands if name not in self.ledger]  # an output is given as an argument too
        reads = [name for name in operands if name in self.ledger]
        sizes = [_size_of(self._tensor(name)) for name in writes]
        if kind == "linear":
            op_class = self.ledger.product_class(*reads[:2])
        elements = sizes[0].elements if sizes else 0
        self.ledger.add(
            OpWork(
                name=writes[0] if writes else op_type,
                op_type=op_type,
                op_class=op_class,
                backend=BACKEND,
                precision="fp16" if any(self._tensor(x).scalar_type == ScalarType.HALF for x in writes) else "fp32",
                flops=2 * elements * self.ledger[reads[0]].shape[-1] if kind == "linear" else 0,
                obstacle=self._find_obstacle(op_type, op_class, writes),
            ),
            reads,
            dict(zip(writes, sizes, strict=True)),
            has_bias=op_type == "linear" and len(reads) > 2,
            is_view=op_type in _VIEWS,
        )

    def _add_delegate(self, call: Any) -> None:
        delegate = self.plan.delegates[call.delegate_index]
        if delegate.id != "XnnpackBackend":
            raise TargetError(f"the program has a delegate {delegate.id!r}, expected XnnpackBackend", "report it")
        externals = [name for index in call.args for name in self.tensors(index)]
        where = delegate.processed
        is_apart = where.location == schema.DataLocation.SEGMENT
        payload = self.segments[where.index] if is_apart else self.program.backend_delegate_data[where.index].data
        graph = XnnpackGraph(bytes(payload), f"delegate {call.delegate_index}", self.named_data)
        graph.enter(self.ledger, externals)
        self.num_delegate_calls += 1

    def _tensor(self, name: str) -> Any:
        return self.plan.values[int(name.removeprefix("value "))].val

    def _find_obstacle(self, op_type: str, op_class: OpClass, writes: Sequence[str]) -> str:
        """Why XNNPACK's partitioner left an operator to the portable kernels."""
        if op_type in _VIEWS:
            return ""  # costs nothing
        if any(self._tensor(name).scalar_type not in _FLOATS for name in writes):
            return "integers: XNNPACK computes in floating point, and in integers what was quantised only"
        return _OBSTACLES.get(op_class, "XNNPACK's partitioner left it out")


def _parse(content: bytes, file: Path) -> tuple[Any, list[memoryview]]:
    if content[4:6] != _MAGIC:
        raise BundleError(f"{file} is not an ExecuTorch program: it does not begin like one", "export the bundle again")
    header = _get_extended_header(content)
    end, base = (header.program_size, header.segment_base_offset) if header else (len(content), 0)
    try:
        program = _flatbuffer_to_program(content[:end])
    except Exception as error:  # flatbuffers checks nothing: what a broken file raises is anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BundleError(f"{file} is not an ExecuTorch program: {reason}", "export the bundle again") from error
    rest = memoryview(content)[base:]
    return program, [rest[one.offset : one.offset + one.size] for one in program.segments]


def _name(index: int) -> str:
    return f"value {index}"


def _size_of(tensor: Any) -> TensorSize:
    kind = ScalarType(tensor.scalar_type)
    if kind not in _BITS:
        raise TargetError(f"the program has a tensor of type {kind.name}, which is not counted", "report it")
    return TensorSize(shape=tuple(tensor.sizes), bits=_BITS[kind])
