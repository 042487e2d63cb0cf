"""What can be written: a row a target, read before anything heavy is loaded; the rest says its own module."""

from __future__ import annotations

from dataclasses import dataclass

from kind_core.errors import TargetError
from kind_core.precisions import PrecisionName
from kind_runtimes.engine_rows import ENGINES


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetRow:
    """`module` offers what `kind_export.targets.target.Target` lists, `tools` are packages whose versions are noted.

    `precisions`: those that it writes; of these, the oldest iOS loads none of `needs_ios_18`, and products with weights
    of `integer_products` are of 8-bit integers, the others of floats. `is_program`: it writes programs for devices,
    which is what `--target all` means; else a folder for Python, with every weight as trained. `casts_module`: the
    module is given in the precision, and not rounded by the tool. `gives_pictures`: a program may have a picture as its
    output. `reads_back_weights`: those of a saved program can be put back into the module. `max_bytes`: of a file.
    `has_class_functions`: one file may hold a function a class. `is_for_ios`: the oldest iOS
    counts. `rounds_sampler`: below fp32 the sampler is rounded as the network is, guidance included.
    `rounds_all`: a GPU does so with an fp16 program, a CPU does not. `extra`: of this package, which has what it needs;
    such a target is no part of `all`.
    """

    name: str
    module: str
    tools: tuple[str, ...]
    precisions: tuple[PrecisionName, ...] = ("fp32", "fp16", "int8", "int4")
    default_precision: PrecisionName = "fp32"
    needs_ios_18: tuple[PrecisionName, ...] = ()
    integer_products: tuple[PrecisionName, ...] = ("int8",)
    is_program: bool = True
    casts_module: bool = False
    gives_pictures: bool = False
    reads_back_weights: bool = False
    max_bytes: int | None = None
    has_class_functions: bool = False
    is_for_ios: bool = False
    rounds_sampler: bool = False
    rounds_all: bool = False
    extra: str | None = None

    @property
    def suffix(self) -> str:
        """Of a program's file, or folder."""
        return ENGINES[self.name].suffix

    def choose_precision(self, asked: PrecisionName | None) -> PrecisionName:
        """The asked precision or the target's default; raises TargetError where the target has no such precision."""
        if asked is None:
            return self.default_precision
        if asked not in self.precisions:
            raise TargetError(
                f"target {self.name!r} has no precision {asked!r}, expected one of {', '.join(self.precisions)}",
                "choose another --precision, or export this target alone",
            )
        return asked

    def loadable_precisions(self, min_ios: int) -> tuple[PrecisionName, ...]:
        """Those that the oldest system that is asked for can load."""
        return tuple(one for one in self.precisions if min_ios >= 18 or one not in self.needs_ios_18)


def _table(*rows: TargetRow) -> dict[str, TargetRow]:
    return {row.name: row for row in rows}


TARGET_ROWS = _table(
    TargetRow(
        name="coreml",
        module="kind_export.targets.coreml.lower",
        tools=("coremltools", "torch"),
        precisions=("fp32", "fp16", "int8", "int4", "palette6", "palette4"),
        default_precision="fp16",  # what the Neural Engine computes in, also with weights of fewer bits
        needs_ios_18=("int4",),
        integer_products=(),
        gives_pictures=True,
        reads_back_weights=True,
        has_class_functions=True,
        is_for_ios=True,
        rounds_sampler=True,
    ),
    TargetRow(  # fp32 as onnxruntime's CPU kernels are; fp16 halves the file and adds casts
        name="onnx",
        module="kind_export.targets.onnx.lower",
        tools=("onnx", "onnxscript", "onnxruntime", "torch"),
        casts_module=True,
        max_bytes=2**31 - 1,  # of a protobuf, weights included
    ),
    TargetRow(  # XNNPACK's fp16 is native on ARM only, and cuts the graph elsewhere; activations are always quantised
        name="executorch",
        module="kind_export.targets.executorch.lower",
        tools=("executorch", "torch"),
        integer_products=("int8", "int4"),
        casts_module=True,
    ),
    TargetRow(
        name="litert",
        module="kind_export.targets.litert.lower",
        tools=("litert-torch", "ai-edge-quantizer", "ai-edge-litert", "torch"),
        precisions=("fp32", "fp16", "int8"),
        max_bytes=2**31 - 1,  # of a flatbuffer, weights included
        rounds_all=True,
        extra="litert",
    ),
    TargetRow(
        name="diffusers",
        module="kind_export.targets.diffusers.write",
        tools=("torch",),
        precisions=("fp32", "fp16"),  # of the weights on disk
        is_program=False,
        rounds_sampler=True,
    ),
)
