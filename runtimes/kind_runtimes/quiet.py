"""Importing coremltools and executorch without the lines they always print on Linux.

All of them are warnings on three loggers, emitted once, while the packages are imported. Any other warning, and the
same failures for another reason, still come through.
"""

from __future__ import annotations

import importlib
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
    # torchao, which coremltools and executorch import, has libraries for GPUs and other Python versions.
    re.compile(r"Failed to load \S+/torchao/_C\S*\.so: Could not load this library: \S+"),
    # torchao registers its enums the way an older torch wanted it.
    re.compile(r"<enum '\w+'> is an Enum subclass and is now natively supported by torch\.compile .*"),
)
_LOGGERS = ("coremltools", "torchao", "torch.utils._pytree")


def is_expected(line: str) -> bool:
    """Whether `line` is one of the lines that these packages always log on Linux."""
    return any(pattern.fullmatch(line) for pattern in _EXPECTED_LINES)


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


@contextmanager
def without_import_noise() -> Iterator[None]:
    """Drop the expected lines, and no others, of what is imported in the body."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(_drop_expected)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_drop_expected)


def _drop_expected(record: logging.LogRecord) -> bool:
    return not is_expected(record.getMessage())
