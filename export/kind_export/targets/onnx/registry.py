"""The translation of torch's operators to ONNX, read once a process.

torch.onnx parses the source of its five hundred functions for every program, a third of the time that one takes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

from torch.onnx._internal.exporter._registration import ONNXRegistry

from kind_export.targets.replacing import replaced

_read = cache(ONNXRegistry.from_torchlib)


def kept_registry() -> AbstractContextManager[None]:
    """torch.onnx within this takes what was read before; nothing may be registered there."""
    return replaced(ONNXRegistry, "from_torchlib", staticmethod(_read))
