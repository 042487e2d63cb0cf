"""What the engines say and tell: the import of coremltools and onnxruntime, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize(("given", "becomes"), [(None, "1"), ("0", "0")])
def test_onnxruntime_reports_to_nobody_unless_asked(tmp_path: Path, given: str | None, becomes: str) -> None:
    """Where it reports, it leaves `.ses` in the folder of temporaries when it is loaded."""
    environment = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    environment |= {"TMPDIR": str(tmp_path)} | ({} if given is None else {"ORT_DISABLE_TELEMETRY": given})
    program = "import kind_runtimes.engines.onnx, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == becomes
    if becomes == "1":
        assert list(tmp_path.iterdir()) == []
