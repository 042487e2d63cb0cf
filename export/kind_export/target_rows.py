"""What can be written: a row a target, read before anything heavy is loaded; the rest says its own module."""

from __future__ import annotations

from dataclasses import dataclass

from kind_core.errors import TargetError
from kind_core.precisions import PrecisionName


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetRow:
    """`module` offers what `kind_export.targets.target.Target` lists.

    `is_program`: it writes programs for devices, which is what `--target all` means; else a folder for Python, with
    every weight as trained. `has_class_functions`: one file may hold a function a class. `is_for_ios`: the oldest iOS
    counts. `rounds_sampler`: below fp32 the sampler is rounded as the network is, guidance included.
    `rounds_all`: a GPU does so with an fp16 program, a CPU does not. `extra`: of this package, which has what it needs;
    such a target is no part of `all`. `precisions`: those that it writes.
    """

    name: str
    module: str
    is_program: bool = True
    has_class_functions: bool = False
    is_for_ios: bool = False
    rounds_sampler: bool = False
    rounds_all: bool = False
    extra: str | None = None
    precisions: tuple[PrecisionName, ...] = ("fp32", "fp16", "int8", "int4")

    def require_precision(self, asked: PrecisionName) -> None:
        """Raise TargetError where the target has no such precision."""
        if asked not in self.precisions:
            raise TargetError(
                f"target {self.name!r} has no precision {asked!r}, expected one of {', '.join(self.precisions)}",
                "choose another --precision, or export this target alone",
            )


def _table(*rows: TargetRow) -> dict[str, TargetRow]:
    return {row.name: row for row in rows}


TARGET_ROWS = _table(
    TargetRow(
        name="coreml",
        module="kind_export.targets.coreml.lower",
        has_class_functions=True,
        is_for_ios=True,
        rounds_sampler=True,
        precisions=("fp32", "fp16", "int8", "int4", "palette6", "palette4"),
    ),
    TargetRow(name="onnx", module="kind_export.targets.onnx.lower"),
    TargetRow(name="executorch", module="kind_export.targets.executorch.lower"),
    TargetRow(
        name="litert",
        module="kind_export.targets.litert.lower",
        extra="litert",
        rounds_all=True,
        precisions=("fp32", "fp16", "int8"),
    ),
    TargetRow(
        name="diffusers",
        module="kind_export.targets.diffusers.write",
        is_program=False,
        rounds_sampler=True,
        precisions=("fp32", "fp16"),  # of the weights on disk
    ),
)
