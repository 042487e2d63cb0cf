"""Importing coremltools, executorch and diffusers' models without the lines they always print on Linux.

All of them are warnings on a few loggers, emitted once, while the packages are imported. Any other warning, and the
same failures for another reason, still come through.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

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
    # diffusers' models import all that weights could be quantised by; nothing here is.
    re.compile(r"Unable to import `torchao` Tensor objects\. This may affect loading checkpoints .*"),
    # optimum's own add-ons share its namespace.
    re.compile(r"Multiple distributions found for package optimum\. Picked distribution: \S+"),
    # torchao registers its enums the way an older torch wanted it.
    re.compile(r"<enum '\w+'> is an Enum subclass and is now natively supported by torch\.compile .*"),
)
_LOGGERS = (
    "coremltools",
    "torchao",
    "torch.utils._pytree",
    "diffusers.quantizers.torchao.torchao_quantizer",
    "diffusers.utils.import_utils",
)


def is_expected(line: str) -> bool:
    """Whether `line` is one of the lines that these packages always log on Linux."""
    return any(pattern.fullmatch(line) for pattern in _EXPECTED_LINES)


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
