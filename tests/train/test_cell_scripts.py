"""The scripts that hand cells to an engine: each names every cell once, and those whose engine is here are run."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_suites import call, read_lines

from kind_train.benchmark.cell_scripts import SCRIPTS

ARMS = ("tailors", "svdiff", "full-ft")
CELLS = [f"{arm}--task--0" for arm in sorted(ARMS)]


@pytest.fixture
def given(bases: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    """A suite of three cells that draws nothing, in a folder whose name a shell has to be told with quotes."""
    place = tmp_path / "it's here; $HOME"
    place.mkdir()
    monkeypatch.chdir(place)
    return ("gpu-time", *bases, "--images", 8, "--batch-size", 4, "--methods", ",".join(ARMS), "--output", "out put")


def run_script(words: list[str], script: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run a printed script from elsewhere, with the `kind-train` of these sources."""
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    command = programs / "kind-train"
    start = shlex.join([sys.executable, "-c", "from kind_train.cli import main; main()"])
    command.write_text(f'#!/bin/sh\nexec {start} "$@"\n')
    command.chmod(0o755)
    file = tmp_path / "cells"
    file.write_text(script)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "JOBS": "2"}
    return subprocess.run([*words, str(file)], cwd="/", env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("engine", SCRIPTS)
@pytest.mark.parametrize("device", [(), ("--device", "cuda:0")])
def test_a_script_names_every_cell_once(
    given: tuple[Any, ...], tmp_path: Path, engine: str, device: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kind_train.early.require_device", lambda name: None)
    script = call(*given, *device, "--script", engine)
    listed = [line.split()[1] for line in call(*given, *device, "--list-cells").splitlines()]
    assert sorted(listed) == CELLS
    assert [script.count(name) for name in CELLS] == [1, 1, 1]
    assert script.count("--cell") == 1
    assert "--script" not in script
    asks = {"shell": "", "slurm": "#SBATCH --gpus=1\n", "torchrun": "LOCAL_WORLD_SIZE", "ray": "num_gpus=1"}[engine]
    assert (asks in script) == (bool(device) or not asks)
    if engine in ("shell", "slurm"):
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    else:
        compile(script, "cells.py", "exec")


@pytest.mark.slow
def test_the_script_of_a_shell_makes_the_cells(given: tuple[Any, ...], tmp_path: Path) -> None:
    done = run_script(["bash"], call(*given, "--script", "shell"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(one["arm"] for one in read_lines(Path("out put"))) == sorted(ARMS)
    assert "all 3 cells are in out put" in call(*given, "--script", "shell")


def test_a_slurm_array_makes_the_cell_of_its_number(
    given: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = call(*given, "--script", "slurm")
    assert "#SBATCH --array=0-2\n" in script
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    done = run_script(["bash"], script, tmp_path)
    assert done.returncode == 0, done.stderr
    states = {line.split()[1]: line.split()[2] for line in call(*given, "--list-cells").splitlines()}
    assert list(states.values()).count("done") == 1
    assert states[list(states)[1]] == "done"
    # what is there is not asked for again
    again = call(*given, "--script", "slurm")
    assert "#SBATCH --array=0-1\n" in again
    assert [name for name in states if name not in again] == [list(states)[1]]


@pytest.mark.slow
def test_two_processes_of_torchrun_share_the_cells(given: tuple[Any, ...], tmp_path: Path) -> None:
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = run_script(words, call(*given, "--script", "torchrun"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(one["arm"] for one in read_lines(Path("out put"))) == sorted(ARMS)


@pytest.mark.slow
def test_torchrun_says_which_cells_failed_and_makes_the_others(given: tuple[Any, ...], tmp_path: Path) -> None:
    script = call(*given, "--script", "torchrun").replace("'svdiff--task--0'", "'nobody--task--0'")
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = run_script(words, script, tmp_path)
    assert done.returncode != 0
    assert "failed: nobody--task--0" in done.stderr
    assert sorted(one["arm"] for one in read_lines(Path("out put"))) == ["full-ft", "tailors"]


@pytest.mark.slow
def test_a_ray_script_makes_every_cell(given: tuple[Any, ...], tmp_path: Path) -> None:
    """With a ray that does at once what it is asked for."""
    (tmp_path / "ray.py").write_text(
        "def remote(**needs):\n"
        "    assert needs == {'num_cpus': 1, 'num_gpus': 0}\n"
        "    return lambda made: type('Task', (), {'remote': staticmethod(made)})\n"
        "def init(): pass\n"
        "def get(codes): return codes\n"
    )
    done = run_script([sys.executable], call(*given, "--script", "ray"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(one["arm"] for one in read_lines(Path("out put"))) == sorted(ARMS)


def test_what_has_no_script_is_one_line(given: tuple[Any, ...]) -> None:
    assert "script is 'lsf', expected one of shell, slurm, torchrun, ray" in call(*given, "--script", "lsf")
    assert "--list-cells and --script exclude each other" in call(*given, "--script", "ray", "--list-cells")
    assert "--script and --cell exclude each other" in call(*given, "--script", "ray", "--cell", 0)
    assert "there is no cell 'nobody', expected a name or 0 to 2" in call(*given, "--cell", "nobody")
