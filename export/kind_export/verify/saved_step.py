"""What a package should compute, weights as saved: it tells a wrong graph from the error of fewer bits.

Only Core ML needs it, whose packages are evaluated here; onnxruntime and ExecuTorch are what runs on the device too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from kind_export.targets.lowering import Lowered
from kind_export.targets.target import Lowering


class SavedStep:
    """The step of a saved Core ML package in eager fp32; where each class has its own, that of `class_index`."""

    def __init__(self, folder: Path, lowered: Lowered) -> None:
        self._lowering = lowered.step
        steps: Sequence[tuple[str | None, Lowering]] = list(lowered.class_steps.items())
        steps = steps or [(lowered.spec.programs["step"].function, lowered.step)]
        self._modules = [_restore(folder, lowered, function, step) for function, step in steps]

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One run, inputs and outputs by name."""
        index = int(inputs["class_index"][0]) if len(self._modules) > 1 else 0
        outputs = self._modules[index](*(torch.from_numpy(inputs[spec.name]) for spec in self._lowering.inputs))
        return {spec.name: one.numpy() for spec, one in zip(self._lowering.outputs, outputs, strict=True)}


def _restore(folder: Path, lowered: Lowered, function: str | None, step: Lowering) -> nn.Module:
    from kind_export.targets.coreml.compression import COMPRESSED, restore_module

    if lowered.options.precision not in COMPRESSED:
        return step.module
    return restore_module(step, folder / lowered.spec.programs["step"].file, function)
