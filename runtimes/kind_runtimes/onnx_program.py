"""ONNX programs in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from kind_core.errors import BundleError
from kind_runtimes.manifest import ProgramSpec
from kind_runtimes.runtime import Arrays, check_inputs

# All that loading a file can raise; they have no common class but Exception.
_LOAD_ERRORS = (
    errors.Fail,
    errors.InvalidArgument,
    errors.InvalidGraph,
    errors.InvalidProtobuf,
    errors.NoSuchFile,
    errors.NotImplemented,
    errors.RuntimeException,
)


class OnnxProgram:
    """A session on the CPU provider."""

    def __init__(self, file: Path, spec: ProgramSpec, num_threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.log_severity_level = 3  # errors; version warnings are not the user's to mend
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except _LOAD_ERRORS as error:
            reason = " ".join(str(error).split())
            raise BundleError(f"onnxruntime cannot load {file}: {reason}", "export the bundle again") from error
        self._spec = spec
        self.engine = f"onnxruntime {onnxruntime.__version__} on CPU"

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        check_inputs(inputs, self._spec)
        outputs = self._session.run([s.name for s in self._spec.outputs], dict(inputs))
        return dict(zip((s.name for s in self._spec.outputs), outputs, strict=True))


def open_program(file: Path, spec: ProgramSpec) -> OnnxProgram:
    """Open an .onnx file; raises BundleError with onnxruntime's reason when it cannot."""
    return OnnxProgram(file, spec)
