"""ExecuTorch programs in its Python runtime, with the XNNPACK backend."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from executorch.runtime import Runtime, Verification

from kind_core.errors import BundleError
from kind_runtimes.manifest import ProgramSpec
from kind_runtimes.runtime import Arrays, check_inputs


class ExecutorchProgram:
    """The `forward` method of a .pte file."""

    def __init__(self, file: Path, spec: ProgramSpec) -> None:
        try:
            with _hushed_cpuinfo():
                # the program must outlive its method
                self._program = Runtime.get().load_program(file, verification=Verification.Minimal)
                self._method = self._program.load_method("forward")
        except RuntimeError as error:
            raise BundleError(f"ExecuTorch cannot load {file}: {error}", "export the bundle again") from error
        self._spec = spec
        self.engine = f"ExecuTorch {version('executorch')} with XNNPACK on CPU"

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        arrays = check_inputs(inputs, self._spec)
        outputs = self._method.execute([torch.from_numpy(np.ascontiguousarray(a)) for a in arrays])
        return {s.name: o.numpy().copy() for s, o in zip(self._spec.outputs, outputs, strict=True)}


def open_program(file: Path, spec: ProgramSpec) -> ExecutorchProgram:
    """Open a .pte file."""
    return ExecutorchProgram(file, spec)


@contextmanager
def _hushed_cpuinfo() -> Iterator[None]:
    """Drop what cpuinfo writes to stderr while XNNPACK starts on x86: it looks for files that only ARM boards have."""
    import sys
    import tempfile

    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with tempfile.TemporaryFile() as log:
            os.dup2(log.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(saved, 2)
                log.seek(0)
                kept = [line for line in log.read().splitlines(keepends=True) if b"cpuinfo_utils.cpp" not in line]
                os.write(2, b"".join(kept))
    finally:
        os.close(saved)
