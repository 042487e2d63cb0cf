"""Programs that compute in eager fp32 what would be lowered, with a fault before or after: only the gate is tested."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from kind_runtimes.manifest import ProgramSpec

Arrays = dict[str, np.ndarray]


@dataclass
class EagerProgram:
    """A program that computes its lowering's module; `before` and `after` are the fault."""

    module: torch.nn.Module
    spec: ProgramSpec
    before: Callable[[Arrays], Arrays] = dict
    after: Callable[[Arrays, Mapping[str, np.ndarray]], Arrays] = lambda outputs, inputs: outputs
    engine: str = "eager"

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        given = self.before(dict(inputs))
        outputs = self.module(*(torch.from_numpy(given[one.name]) for one in self.spec.inputs))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return self.after({s.name: o.numpy() for s, o in zip(self.spec.outputs, outputs, strict=True)}, inputs)
