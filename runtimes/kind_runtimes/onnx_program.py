"""ONNX programs in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from kind_core.errors import BundleError
from kind_runtimes.manifest import ProgramSpec
from kind_runtimes.runtime import Arrays, check_inputs


class OnnxProgram:
    """A session on the CPU provider."""

    def __init__(self, file: Path, spec: ProgramSpec, num_threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.log_severity_level = 3  # errors; version warnings are not the user's to mend
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has no common exception class of its own
            raise BundleError(f"onnxruntime cannot load {file}: {error}", "export the bundle again") from error
        self._spec = spec
        self.engine = f"onnxruntime {onnxruntime.__version__} on CPU"

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        check_inputs(inputs, self._spec)
        outputs = self._session.run([s.name for s in self._spec.outputs], dict(inputs))
        return dict(zip((s.name for s in self._spec.outputs), outputs, strict=True))


def open_program(file: Path, spec: ProgramSpec) -> OnnxProgram:
    """Open an .onnx file."""
    return OnnxProgram(file, spec)
