"""A few cases of every subject, by the command that runs ten thousand; seeds kept from failures come first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kind_runtimes.bundle import Bundle

TESTS = Path(__file__).parents[1]
PATHS = (
    TESTS,
    TESTS / "export",
    TESTS / "train",
    *(TESTS.parent / name for name in (".", "export", "runtimes", "train", "samples")),
)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="a child process of its own for each case that hangs")
def test_no_input_ends_in_a_traceback_a_hang_or_for_want_of_memory(small_bundle: Bundle) -> None:
    path = os.pathsep.join([*map(str, PATHS), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "fuzz", "--cases", "300", "--bundle", str(small_bundle.path)]
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    total = next(line for line in found.stdout.splitlines() if line.startswith("all ")).split()[1:]
    refused, accepted, unclear, *_ = map(int, total)
    assert refused + accepted + unclear >= 300
    assert accepted > 0  # else nothing was ever used
    assert unclear == 0, found.stdout
