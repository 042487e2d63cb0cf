"""ExecuTorch programs in its Python runtime, with the XNNPACK backend."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kind_core.errors import BundleError, TargetError
from kind_runtimes.about import PREFIX, FileDescription
from kind_runtimes.engines.native_log import held_stderr
from kind_runtimes.engines.runtime import DEFAULT_OPTIONS, Arrays, EngineOptions, check_inputs, check_outputs
from kind_runtimes.manifest import ProgramSpec, TensorSpec
from kind_runtimes.quiet import without_import_noise

with without_import_noise():
    from executorch.runtime import Runtime, Verification

# What XNNPACK's start writes on x86: it looks for files that only ARM boards have.
_CPUINFO_LINE = re.compile(rb"\[cpuinfo_utils\.cpp:\d+\] [^\n]*\n")
# Where ExecuTorch says why it refuses a file; its exceptions hold a number only.
_REASON_LINE = re.compile(rb"\[\w+\.(?:cpp|h):\d+\] (?P<reason>[^\n]*)\n")
hushed_cpuinfo = partial(held_stderr, _CPUINFO_LINE, _REASON_LINE)  # of a body that fails, the second go to `reasons`


DEFAULT_METHOD = "forward"
_DTYPES = {3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64", 11: "bool"}  # of torch's ScalarType


class ExecutorchProgram:
    """A method of a .pte file: `function`, or `forward`; a BundleError has ExecuTorch's reason where it cannot load."""

    def __init__(
        self, file: Path, spec: ProgramSpec, function: str | None = None, options: EngineOptions = DEFAULT_OPTIONS
    ) -> None:
        set_threads(options)
        # the program must outlive its method
        self._program, self._method = _load(file, function or DEFAULT_METHOD)
        self._spec = spec
        self.texts = _read_texts(self._program)
        self.engine = f"ExecuTorch {version('executorch')} with XNNPACK on CPU"

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        arrays = check_inputs(inputs, self._spec)
        outputs = self._method.execute([torch.from_numpy(np.ascontiguousarray(a)) for a in arrays])
        named = {s.name: o.numpy().copy() for s, o in zip(self._spec.outputs, outputs, strict=True)}
        check_outputs(named, self._spec)
        return named


open_program = ExecutorchProgram


def set_threads(options: EngineOptions) -> None:
    """Give the one pool of threads of this process its size, where `options` say one; for what is opened later."""
    if options.provider is not None:
        raise TargetError(
            f"ExecuTorch was asked for provider {options.provider!r}, but a program's backend is fixed when it is "
            "exported: XNNPACK on CPU",
            "leave --provider out",
        )
    if options.threads is None:
        return
    from executorch.extension.pybindings import portable_lib

    if portable_lib._threadpool_get_thread_count() != options.threads:
        with hushed_cpuinfo():
            portable_lib._unsafe_reset_threadpool(options.threads)
    count = portable_lib._threadpool_get_thread_count()
    if count != options.threads:
        raise TargetError(f"ExecuTorch was asked for {options.threads} threads and took {count}", "try fewer --threads")


def describe_file(file: Path) -> FileDescription:
    """What a .pte file says of itself: its constant methods, and the shapes that its first method takes.

    Raises BundleError where ExecuTorch cannot load it. The file names no inputs; its texts do.
    """
    program, method = _load(file, DEFAULT_METHOD)
    texts = _read_texts(program)
    meta = method.metadata
    meta = meta() if callable(meta) else meta
    inputs = [(f"input {i}", meta.input_tensor_meta(i)) for i in range(meta.num_inputs())]
    outputs = [(f"output {i}", meta.output_tensor_meta(i)) for i in range(meta.num_outputs())]
    return FileDescription(
        texts=dict(sorted(texts.items())),
        inputs=tuple(_read_spec(name, one) for name, one in inputs),
        outputs=tuple(_read_spec(name, one) for name, one in outputs),
    )


def _read_texts(program: Any) -> dict[str, str]:
    """What a program says of itself: its constant methods."""
    return {
        name.replace("_", ".", 1): str(program.load_method(name).execute([])[0])
        for name in program.method_names
        if name.startswith(PREFIX.replace(".", "_"))
    }


def _read_spec(name: str, meta: Any) -> TensorSpec:
    return TensorSpec(name=name, shape=tuple(meta.sizes()), dtype=_DTYPES.get(meta.dtype(), f"dtype {meta.dtype()}"))


def _load(file: Path, method: str) -> tuple[Any, Any]:
    reasons: list[str] = []
    try:
        with hushed_cpuinfo(reasons):
            program = Runtime.get().load_program(file, verification=Verification.InternalConsistency)
            return program, program.load_method(method)
    except (RuntimeError, KeyError) as error:  # KeyError: a program without that method
        reason = "; ".join([*reasons, str(error)])
        raise BundleError(f"ExecuTorch cannot load {file}: {reason}", "export the bundle again") from error
