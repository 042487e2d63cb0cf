"""The import of coremltools, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kind_runtimes.quiet import is_expected


def test_expected_lines_are_silenced_and_no_others() -> None:
    program = """
import logging
from kind_runtimes.quiet import import_coremltools
coremltools = import_coremltools()
logging.getLogger("coremltools").warning("Failed to load _MLModelProxy: a damaged library")
logging.getLogger("coremltools").warning("scikit-learn is mentioned")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert not [line for line in lines if is_expected(line)]
    kept = [line for line in lines if "_MLModelProxy" in line or "scikit-learn" in line]
    assert kept == ["Failed to load _MLModelProxy: a damaged library", "scikit-learn is mentioned"]
    assert not [line for line in lines if "tested with coremltools" in line]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Failed to load _MLModelProxy: No module named 'coremltools.libcoremlpython'", True),
        ("Failed to load _MLModelProxy: dlopen: symbol not found", False),
        (
            "Torch version 2.13.0+cpu has not been tested with coremltools. You may run into unexpected errors. "
            "Torch 2.7.0 is the most recent version that has been tested.",
            True,
        ),
        (
            "Unable to import `torchao` Tensor objects. This may affect loading checkpoints serialized with `torchao`",
            True,
        ),
        (
            "XGBoost version 2.0.0 has not been tested with coremltools. You may run into unexpected errors. "
            "XGBoost 1.4.2 is the most recent version that has been tested.",
            False,
        ),
        (
            "scikit-learn version 1.9.1 is not supported. Minimum required version: 0.17. "
            "Maximum required version: 1.5.1. Disabling scikit-learn conversion API.",
            True,
        ),
    ],
)
def test_lines_are_told_apart(line: str, expected: bool) -> None:
    assert is_expected(line) == expected
