"""What each MIL op computes, one family per module. Semantics: docs of coremltools.converters.mil.mil.ops.defs."""

from __future__ import annotations

from kind_runtimes.coreml.ops import (
    activation,
    compression,
    convolution,
    elementwise,
    generation,
    indexing,
    linear,
    movement,
    normalization,
    pooling,
    reduction,
    resizing,
    slicing,
)
from kind_runtimes.coreml.ops.registry import Rule, find_rule

__all__ = [
    "Rule",
    "activation",
    "compression",
    "convolution",
    "elementwise",
    "find_rule",
    "generation",
    "indexing",
    "linear",
    "movement",
    "normalization",
    "pooling",
    "reduction",
    "resizing",
    "slicing",
]
