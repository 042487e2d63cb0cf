"""Importing coremltools without the lines it always prints; see `kind_core.console.quiet`."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from kind_core.console.quiet import is_expected, without_import_noise
from kind_core.errors import TargetError

__all__ = ["import_coremltools", "is_expected", "without_import_noise"]


def import_coremltools() -> ModuleType:
    """The module `coremltools`; a TargetError where it is not installed (it has no aarch64 Linux wheel)."""
    if loaded := sys.modules.get("coremltools"):
        return loaded
    try:
        with without_import_noise():
            return importlib.import_module("coremltools")
    except ImportError as error:
        raise TargetError(
            f"coremltools cannot be imported: {error}", "install it with `pip install coremltools==9.0`"
        ) from error
