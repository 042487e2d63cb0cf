"""The targets: each lowers a traced program to one file that its runtime runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from kind_core.errors import ExportError, KindError, TargetError
from kind_core.precisions import PrecisionName
from kind_export.compact.step import GraphStyle
from kind_export.target_rows import TARGET_ROWS, TargetRow
from kind_runtimes.about import About
from kind_runtimes.manifest import TensorSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Lowering:
    """One program to lower: the module, example inputs in order, and the names of inputs and outputs.

    `image_output` asks for a picture type where the target has one; the module then gives 0 to 255.
    """

    name: str
    module: nn.Module
    example: tuple[Tensor, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


Facts = dict[str, object]  # what the tools of a target report of a program, for the manifest


class Target(Protocol):
    """What a target module offers: its row, how operators are written for it, and how it is lowered."""

    ROW: TargetRow
    STYLE: GraphStyle

    def lower(self, lowering: Lowering, file: Path, options: TargetOptions) -> Facts:
        """Write the program to `file`; returns facts for the manifest."""
        ...

    def lower_functions(self, lowerings: Mapping[str, Lowering], file: Path, options: TargetOptions) -> Facts:
        """Write several programs to one file, a function each, their weights once; where the row says so."""
        ...

    def lower_pair(
        self, step: Lowering, unguided: Lowering, is_guided: Sequence[bool], file: Path, options: TargetOptions
    ) -> tuple[Facts, dict[str, str | None]]:
        """Write a guided step and its unguided twin to one file, their weights once.

        Returns facts and the function of each program by name; a target that chooses inside has `step` alone.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetOptions:
    """Options of all targets; each reads its own.

    `keep` names the linear layers of the lowered module (`blocks.0.matrices.qkv.last`) that are too sensitive for the
    asked precision: they stay at 8 bit where that is below 8 bit, and in floating point where it is 8 bit.

    `class_functions` asks for a function a class in place of the input `class_index`: their names by class id, in the
    order of the classes. `about` is what a program says of itself, if anything.
    """

    precision: PrecisionName
    min_ios: int = 17
    keep: frozenset[str] = frozenset()
    class_functions: Mapping[str, str] = field(default_factory=dict)
    about: About | None = None

    def describe(self, lowering: Lowering, functions: Mapping[str, str] | None = None) -> dict[str, str]:
        """The texts that a program carries; `functions` where its file holds several (see `About.describe`)."""
        if self.about is None:
            return {}
        return self.about.describe(lowering.name, lowering.inputs, lowering.outputs, functions)


def load_target(name: str) -> Target:
    """Import the module of a row of `TARGET_ROWS`; raises TargetError when its package is not installed."""
    row = TARGET_ROWS[name]
    try:
        return import_module(row.module)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("kind_"):
            raise
        wanted = f"'kind-diffusion[{row.extra}]'" if row.extra else error.name
        raise TargetError(
            f"target {name!r} needs the package {error.name}, which is not installed", f"pip install {wanted}"
        ) from error


def check_size(num_bytes: int, max_bytes: int | None, what: str) -> None:
    """Raise ExportError where weights of `num_bytes` do not fit into a file of at most `max_bytes`."""
    if max_bytes is not None and num_bytes > max_bytes:
        raise ExportError(
            f"the weights of {what} take {num_bytes / 1e9:.2f} GB, but a file of this format holds "
            f"{max_bytes / 1e9:.2f} GB (2 GiB) at most",
            "use fewer bits (--precision fp16 or int8), leave --baking on, or take --target executorch or coreml",
        )


@contextmanager
def one_line_errors(tool: str, lowering: Lowering) -> Iterator[None]:
    """Turn whatever `tool` raises in the body into an ExportError of one line."""
    try:
        yield
    except (KindError, OSError, MemoryError):
        raise
    except Exception as error:  # exporters raise what they run into: KeyError, AssertionError, classes of their own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        raise ExportError(
            f"{tool} cannot lower {lowering.name}: {reason}",
            "try another --target, and please report it with this command",
        ) from error
