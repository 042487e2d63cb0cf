"""What can be written: a row a target, read before anything heavy is loaded; the rest says its own module."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetRow:
    """`module` offers what `kind_export.targets.target.Target` lists.

    `is_program`: it writes programs for devices, which is what `--target all` means; else a folder for Python, with
    every weight as trained. `has_class_functions`: one file may hold a function a class. `is_for_ios`: the oldest iOS
    counts. `rounds_sampler`: below fp32 the sampler is rounded as the network is, guidance included.
    `rounds_all`: a GPU does so with an fp16 program, a CPU does not. `extra`: of this package, which has what it needs;
    such a target is no part of `all`.
    """

    name: str
    module: str
    is_program: bool = True
    has_class_functions: bool = False
    is_for_ios: bool = False
    rounds_sampler: bool = False
    rounds_all: bool = False
    extra: str | None = None


def _table(*rows: TargetRow) -> dict[str, TargetRow]:
    return {row.name: row for row in rows}


TARGET_ROWS = _table(
    TargetRow(
        name="coreml",
        module="kind_export.targets.coreml.lower",
        has_class_functions=True,
        is_for_ios=True,
        rounds_sampler=True,
    ),
    TargetRow(name="onnx", module="kind_export.targets.onnx.lower"),
    TargetRow(name="executorch", module="kind_export.targets.executorch.lower"),
    TargetRow(name="litert", module="kind_export.targets.litert.lower", extra="litert", rounds_all=True),
    TargetRow(name="diffusers", module="kind_export.targets.diffusers.write", is_program=False, rounds_sampler=True),
)
