"""What each MIL op computes, one family per module. Semantics: docs of coremltools.converters.mil.mil.ops.defs."""

from __future__ import annotations

from kind_runtimes.coreml.ops import (
    compression,
    convolution,
    elementwise,
    layers,
    movement,
    reduction,
    resizing,
    slicing,
)
from kind_runtimes.coreml.ops.registry import TORCH_DTYPES, Rule, find_rule

FAMILIES = (compression, convolution, elementwise, layers, movement, reduction, resizing, slicing)

__all__ = ["FAMILIES", "TORCH_DTYPES", "Rule", "find_rule"]
