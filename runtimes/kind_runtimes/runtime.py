"""The one protocol over ONNX Runtime, ExecuTorch and Core ML: open a program, call it with arrays by name."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from kind_core.errors import TargetError
from kind_runtimes.manifest import ProgramSpec

Arrays = dict[str, np.ndarray]


class Program(Protocol):
    """An opened program. `engine` says what really runs it, in words for a report."""

    engine: str

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Run once. Inputs and outputs have the names, shapes and dtypes of the manifest."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class _Runtime:
    module: str
    package: str


_RUNTIMES = {
    "onnx": _Runtime(module="kind_runtimes.onnx_program", package="onnxruntime"),
    "executorch": _Runtime(module="kind_runtimes.executorch_program", package="executorch"),
    "coreml": _Runtime(module="kind_runtimes.coreml_program", package="coremltools"),
}
RUNTIMES = tuple(_RUNTIMES)
# Core ML itself runs on Apple's systems only; its evaluator, elsewhere, is the slowest and comes last.
_PREFERENCE = ("coreml", "onnx", "executorch") if sys.platform == "darwin" else ("onnx", "executorch", "coreml")


def check_runtime(name: str) -> str:
    """`name`; raises TargetError when there is no such runtime."""
    if name not in _RUNTIMES:
        raise TargetError(f"unknown runtime {name!r}, expected one of {', '.join(RUNTIMES)}")
    return name


def choose_runtime(targets: Collection[str]) -> str:
    """The best installed one of a bundle's targets; if none is installed, the best: opening it says what is missing."""
    held = [name for name in _PREFERENCE if name in targets]
    return next((name for name in held if find_spec(_RUNTIMES[name].package)), held[0])


def open_program(runtime: str, file: Path, spec: ProgramSpec) -> Program:
    """Open one program in the runtime of its target; raises TargetError when that is unknown or not installed."""
    entry = _RUNTIMES[check_runtime(runtime)]
    try:
        module = import_module(entry.module)
        # onnxruntime's files hold one program each
        name = {} if spec.function is None else {"function": spec.function}
        return module.open_program(file, spec, **name)  # type: ignore[no-any-return]
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != entry.package:
            raise
        raise TargetError(
            f"runtime {runtime!r} needs the package {entry.package}, which is not installed",
            f"pip install {entry.package}",
        ) from error


def check_inputs(inputs: Mapping[str, np.ndarray], spec: ProgramSpec) -> list[np.ndarray]:
    """The inputs in the program's order; raises ValueError where a name, shape or dtype differs from the manifest."""
    if set(inputs) != {s.name for s in spec.inputs}:
        raise ValueError(f"{spec.name} takes {[s.name for s in spec.inputs]}, was given {sorted(inputs)}")
    for s in spec.inputs:
        array = inputs[s.name]
        if array.shape != s.shape or array.dtype != s.dtype:
            raise ValueError(f"{spec.name} takes {s.name} {s.dtype} {s.shape}, was given {array.dtype} {array.shape}")
    return [inputs[s.name] for s in spec.inputs]
