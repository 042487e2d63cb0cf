"""ONNX programs in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from kind_core.errors import BundleError, TargetError
from kind_runtimes.about import FileDescription
from kind_runtimes.engines.runtime import (
    DEFAULT_OPTIONS,
    Arrays,
    EngineOptions,
    Program,
    check_inputs,
    check_outputs,
    clean_reason,
)
from kind_runtimes.manifest import ProgramSpec, TensorSpec

_CPU = "CPU"
_ENDING = "ExecutionProvider"
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
    """A session on one execution provider, the CPU's unless `options` say otherwise.

    What another provider cannot run is left to the CPU, by onnxruntime itself: a profile shows how much that is. A
    BundleError has onnxruntime's reason where it cannot load the file.
    """

    def __init__(
        self, file: Path, spec: ProgramSpec, options: EngineOptions = DEFAULT_OPTIONS, trace: Path | None = None
    ) -> None:
        name, provider = _find_provider(options.provider or _CPU)
        self._session = _open_session(file, options, provider, trace)
        if self._session.get_providers()[0] != provider:
            raise TargetError(
                f"onnxruntime cannot start its provider {name} here, it would run on {_CPU}",
                f"its log says why; --provider {_CPU} runs everywhere",
            )
        self._file = file
        self._spec = spec
        self.texts: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        rest = "" if name == _CPU else f", the rest on {_CPU}"
        self.engine = f"onnxruntime {onnxruntime.__version__} on {name}{rest}"

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        check_inputs(inputs, self._spec)
        names = [s.name for s in self._spec.outputs]
        outputs = dict(zip(names, self._session.run(names, dict(inputs)), strict=True))
        check_outputs(outputs, self._spec)
        return outputs

    def node_by_node(self) -> Program:
        """The same file with every result between its nodes rounded as its types say, which kernels of a CPU do not."""
        from kind_runtimes.engines.onnx_half import NodeByNodeProgram  # onnx, which only an export needs

        return NodeByNodeProgram(self._file, self._spec)

    def end_trace(self) -> Path:
        """Where the trace lies; for a program that was opened with a path that its name begins with."""
        return Path(self._session.end_profiling())


open_program = OnnxProgram


def describe_file(file: Path) -> FileDescription:
    """What an .onnx file says of itself; raises BundleError where onnxruntime cannot load it."""
    session = _open_session(file, DEFAULT_OPTIONS, _CPU + _ENDING, trace=None, is_run=False)
    return FileDescription(
        texts=dict(session.get_modelmeta().custom_metadata_map),
        inputs=tuple(_read_spec(one) for one in session.get_inputs()),
        outputs=tuple(_read_spec(one) for one in session.get_outputs()),
    )


def _read_spec(node: Any) -> TensorSpec:
    dtype = node.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)  # a name is any size
    return TensorSpec(name=node.name, shape=shape, dtype={"float": "float32"}.get(dtype, dtype))


def _open_session(file: Path, options: EngineOptions, provider: str, trace: Path | None, *, is_run: bool = True) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads or 0
    # What fails is raised as well, and its log would show names of the file unchecked. Only other providers log errors
    # that they do not raise: why they cannot start.
    settings.log_severity_level = 4 if provider == _CPU + _ENDING else 3
    if not is_run:
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if trace is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = str(trace)
    try:
        return onnxruntime.InferenceSession(str(file), settings, providers=[provider])
    except _LOAD_ERRORS as error:
        raise BundleError(
            f"onnxruntime cannot load {file}: {clean_reason(error)}", "export the bundle again"
        ) from error


def list_providers() -> list[str]:
    """Names of the execution providers in this build of onnxruntime, without their ending."""
    return [one.removesuffix(_ENDING) for one in onnxruntime.get_available_providers()]


def _find_provider(asked: str) -> tuple[str, str]:
    """A provider's short and full name, however its letters are written."""
    held = list_providers()
    found = next((one for one in held if one.lower() == asked.removesuffix(_ENDING).lower()), None)
    if found is None:
        raise TargetError(
            f"this onnxruntime has no provider {asked!r}, only {', '.join(held)}",
            "install the build of onnxruntime that holds it, or leave --provider out",
        )
    return found, found + _ENDING
