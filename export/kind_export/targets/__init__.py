"""The targets: each lowers a traced program to one file that its runtime runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from kind_core.errors import ConfigError, TargetError
from kind_export.compact import GraphStyle
from kind_runtimes.manifest import TensorSpec

Precision = Literal["fp32", "fp16"]


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


class Target(Protocol):
    """What a target module offers."""

    SUFFIX: str
    DEFAULT_PRECISION: Precision
    STYLE: GraphStyle
    IMAGE_OUTPUT: bool
    CASTS_MODULE: bool

    def lower(self, lowering: Lowering, file: Path, options: TargetOptions) -> dict[str, Any]:
        """Write the program to `file`; returns facts for the manifest."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetOptions:
    """Options of all targets; each reads its own."""

    precision: Precision
    min_ios: int = 17


_MODULES = {"coreml": "coreml", "onnx": "onnx", "executorch": "executorch"}
TARGETS = tuple(_MODULES)
PRECISIONS = ("fp32", "fp16")
MIN_IOS = (17, 18)


def parse_targets(names: Sequence[str]) -> list[str]:
    """`all` or target names, each once and in a fixed order; raises TargetError for an unknown one."""
    for name in names:
        if name not in (*TARGETS, "all"):
            raise TargetError(f"unknown target {name!r}, expected {', '.join(TARGETS)} or all")
    return [target for target in TARGETS if target in names or "all" in names]


def load_target(name: str) -> Target:
    """Import a target; raises TargetError when its package is not installed."""
    try:
        return import_module(f"kind_export.targets.{_MODULES[name]}")  # type: ignore[return-value]
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("kind_"):
            raise
        raise TargetError(
            f"target {name!r} needs the package {error.name}, which is not installed", f"pip install {error.name}"
        ) from error


def choose_precision(target: Target, asked: str | None) -> Precision:
    """The asked precision or the target's default."""
    if asked is None:
        return target.DEFAULT_PRECISION
    if asked not in PRECISIONS:
        raise ConfigError(f"precision is {asked!r}, expected one of {', '.join(PRECISIONS)}")
    return asked  # type: ignore[return-value]  # one of PRECISIONS
