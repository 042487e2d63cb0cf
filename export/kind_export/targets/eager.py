"""A program that is not lowered: its module in PyTorch, called as a runtime calls what it became."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from kind_export.targets.target import Lowering
from kind_runtimes.engines.runtime import Arrays


@dataclass(slots=True)
class EagerProgram:
    """`guidance` is the scale of every call, in place of the one that is given."""

    lowering: Lowering
    guidance: float | None = None
    engine: str = "eager"

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        given = dict(inputs)
        if self.guidance is not None:
            given["guidance"] = np.array([self.guidance], np.float32)
        outputs = self.lowering.module(*(torch.from_numpy(given[spec.name]) for spec in self.lowering.inputs))
        return {spec.name: one.numpy() for spec, one in zip(self.lowering.outputs, outputs, strict=True)}
