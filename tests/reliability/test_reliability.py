"""A few troubles of training and of a cache, by the command that makes hundreds; what was once lost comes first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PATHS = (TESTS, TESTS / "train", *(TESTS.parent / name for name in (".", "export", "runtimes", "train", "samples")))
FEW = ("--kills", "4", "--power", "4", "--signals", "4", "--disks", "1", "--pairs", "1", "--read-only", "1")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes that begin with everything loaded are forked")
def test_nothing_is_lost_to_kills_power_cuts_signals_full_disks_and_other_writers() -> None:
    path = os.pathsep.join([*map(str, PATHS), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "reliability", *FEW, "--command", "fit", "--command", "cache"]
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    total = found.stdout.splitlines()[-1].split()
    assert total[3:] == ["0", "lost"]
    assert int(total[1]) >= 18
