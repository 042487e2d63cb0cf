"""The import of coremltools without the lines it always prints on Linux.

All of them are warnings on the logger `coremltools`, emitted once, while it is imported. Any other warning,
and the same failures for another reason than the missing macOS library, still come through.
"""

from __future__ import annotations

import importlib
import logging
import re
import sys
from types import ModuleType

from kind_core.errors import TargetError

_EXPECTED_LINES = (
    # Its native library, which runs `predict`, exists on macOS only.
    re.compile(r"Failed to load _ML\w+Proxy: No module named 'coremltools\.libcoremlpython'"),
    # Its scikit-learn converter is not used here.
    re.compile(
        r"scikit-learn version \S+ is not supported\. Minimum required version: \S+ "
        r"Maximum required version: \S+ Disabling scikit-learn conversion API\."
    ),
    # Tried with the torch that this project pins, in its own tests.
    re.compile(
        r"Torch version \S+ has not been tested with coremltools\. You may run into unexpected errors\. "
        r"Torch \S+ is the most recent version that has been tested\."
    ),
)


def is_expected(line: str) -> bool:
    """Whether `line` is one of the lines that coremltools always logs on Linux."""
    return any(pattern.fullmatch(line) for pattern in _EXPECTED_LINES)


def import_coremltools() -> ModuleType:
    """The module `coremltools`; a TargetError where it is not installed (it has no aarch64 Linux wheel)."""
    if loaded := sys.modules.get("coremltools"):
        return loaded
    logger = logging.getLogger("coremltools")
    logger.addFilter(_drop_expected)
    try:
        return importlib.import_module("coremltools")
    except ImportError as error:
        raise TargetError(
            f"coremltools cannot be imported: {error}", "install it with `pip install coremltools==9.0`"
        ) from error
    finally:
        logger.removeFilter(_drop_expected)


def _drop_expected(record: logging.LogRecord) -> bool:
    return not is_expected(record.getMessage())
