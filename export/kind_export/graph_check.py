"""What a package should compute, weights as saved: it tells a wrong graph from the error of fewer bits.

Only Core ML needs it, whose packages are evaluated here; onnxruntime and ExecuTorch are what runs on the device too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from kind_export.lowering import Lowered


class SavedStep:
    """The step of a saved Core ML package in eager fp32."""

    def __init__(self, folder: Path, lowered: Lowered) -> None:
        from kind_export.targets.coreml_compression import COMPRESSED, restore_module

        spec = lowered.spec.programs["step"]
        self._lowering = lowered.step
        is_compressed = lowered.options.precision in COMPRESSED
        self._module = (
            restore_module(lowered.step, folder / spec.file, spec.function) if is_compressed else lowered.step.module
        )

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One run, inputs and outputs by name."""
        outputs = self._module(*(torch.from_numpy(inputs[spec.name]) for spec in self._lowering.inputs))
        return {spec.name: one.numpy() for spec, one in zip(self._lowering.outputs, outputs, strict=True)}
