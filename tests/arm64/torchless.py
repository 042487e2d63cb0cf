"""ExecuTorch programs without PyTorch, whose wheels for arm64 do not load without CUDA: by executorch-numpy-runtime.

It takes the place of `kind_runtimes.engines.executorch`, whose checks of inputs and outputs it makes too. What a
file says of itself is text, which this runtime does not give.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import executorch_numpy_runtime
import numpy as np

from kind_runtimes.engines.runtime import DEFAULT_OPTIONS, Arrays, EngineOptions, check_inputs, check_outputs
from kind_runtimes.manifest import ProgramSpec


class TorchlessProgram:
    """A method of a .pte file."""

    def __init__(self, file: Path, spec: ProgramSpec, function: str | None) -> None:
        self._program = executorch_numpy_runtime.Runtime.get().load_program(str(file))
        self._method = self._program.load_method(function or "forward")
        self._spec = spec
        self.engine = f"ExecuTorch {executorch_numpy_runtime.runtime_info()['executorch_version']} with XNNPACK on CPU"

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        outputs = self._method([np.ascontiguousarray(a) for a in check_inputs(inputs, self._spec)])
        named = {s.name: o for s, o in zip(self._spec.outputs, outputs, strict=True)}
        check_outputs(named, self._spec)
        return named


def open_program(
    file: Path, spec: ProgramSpec, function: str | None = None, *, options: EngineOptions = DEFAULT_OPTIONS
) -> TorchlessProgram:
    """Open a method of a .pte file; of `options` none is taken."""
    del options
    return TorchlessProgram(file, spec, function)
