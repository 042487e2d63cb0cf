"""What a package should compute, weights as saved: it tells a wrong graph from the error of fewer bits.

Only Core ML needs it, whose packages are evaluated here; onnxruntime and ExecuTorch are what runs on the device too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from kind_export.targets.eager import EagerProgram
from kind_export.targets.lowering import Lowered
from kind_export.targets.target import Lowering
from kind_runtimes.engines.runtime import Arrays


class SavedStep:
    """The step of a saved Core ML package in eager fp32; where each class has its own, that of `class_index`."""

    def __init__(self, folder: Path, lowered: Lowered) -> None:
        steps: Sequence[tuple[str | None, Lowering]] = list(lowered.class_steps.items())
        steps = steps or [(lowered.spec.programs["step"].function, lowered.step)]
        modules = [_restore(folder, lowered, function, step) for function, step in steps]
        self._programs = [EagerProgram(replace(lowered.step, module=module)) for module in modules]

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """One run, inputs and outputs by name."""
        index = int(inputs["class_index"][0]) if len(self._programs) > 1 else 0
        return self._programs[index](inputs)


def _restore(folder: Path, lowered: Lowered, function: str | None, step: Lowering) -> nn.Module:
    from kind_export.targets.coreml.compression import COMPRESSED, restore_module

    if lowered.options.precision not in COMPRESSED:
        return step.module
    return restore_module(step, folder / lowered.spec.programs["step"].file, function)
