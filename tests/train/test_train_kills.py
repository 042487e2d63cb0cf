"""A run that is killed at any moment loses at most the work since its last checkpoint, and never a checkpoint."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from forked import forking
from tiny_training import TINY_DIFFUSION, TINY_DIT, make_config, make_photos, write_folder

from kind_core.checkpoint import load_checkpoint
from kind_train.fit import fit_model
from kind_train.run.metrics import Progress
from kind_train.run.run_folder import check_run_folder, read_step, start_run_folder
from kind_train.run.trainer import Trainer
from kind_train.start.shape import Shape

KILLS = 20
STEPS = 400
SAVE_EVERY_STEPS = 3  # so often that many a kill falls into writing a checkpoint


def train(output: Path, noted: Path | None, steps: int = STEPS) -> None:
    """One life of a run; notes each finished step."""
    torch.set_num_threads(1)
    resume = (output / "options.yaml").exists()
    if resume:
        check_run_folder(output, resume=True, force=False)  # mends what the kill left
    config = make_config(output, images=4 * steps, save_every=4 * SAVE_EVERY_STEPS, batch_size=4, learning_rate=1e-3)
    shape = Shape(dit=TINY_DIT, diffusion=TINY_DIFFUSION)
    trainer = Trainer(config, make_photos(11), make_photos(seed=1), resume=resume, shape=shape)
    if not resume:
        start_run_folder(config, resume=False, force=False)
        trainer.save()

    def note(progress: Progress) -> None:
        if noted is not None:
            with noted.open("a") as stream:
                stream.write(f"{os.getpid()} {progress.step}\n")

    trainer.run(note)


def notes_of(noted: Path, pid: int) -> list[int]:
    lines = noted.read_text().splitlines() if noted.exists() else []
    return [int(line.split()[1]) for line in lines if line.split()[0] == str(pid)]


def check_whole(output: Path, saved: int) -> int:
    """Every checkpoint that there was is there; returns the step of the state, never before `saved`."""
    check_run_folder(output, resume=True, force=False)
    step = read_step(output)
    assert step is not None
    assert step >= saved
    assert not list(output.rglob("*.partial"))
    for name in ("last", "best") if step else ("last",):
        load_checkpoint(output / name)
    return step


@pytest.mark.slow
def test_killed_twenty_times_a_run_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    context = forking()
    chance = random.Random(0)
    output, noted = tmp_path / "killed", tmp_path / "noted"
    saved = kills = 0
    while kills < KILLS:
        process = context.Process(target=train, args=(output, noted))
        process.start()
        assert process.pid is not None
        deadline_s = time.monotonic() + 300  # importing torch on a busy machine
        while not notes_of(noted, process.pid) and process.is_alive() and time.monotonic() < deadline_s:
            time.sleep(0.002)
        assert notes_of(noted, process.pid), "the run did not begin"
        time.sleep(chance.uniform(0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the run was done before it was killed; make it longer"
        kills += 1
        done = notes_of(noted, process.pid)
        saved = check_whole(output, saved)
        # the step that was noted last may have been followed by another that was not
        assert saved >= (done[-1] // SAVE_EVERY_STEPS) * SAVE_EVERY_STEPS
    train(output, None, saved + 10)
    train(tmp_path / "whole", None, saved + 10)
    one, other = (load_checkpoint(path / "last").model.state_dict() for path in (output, tmp_path / "whole"))
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    metrics = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    expected = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    for one in (*metrics, *expected):
        one.pop("images_per_second", None)
    assert metrics == expected


@pytest.mark.parametrize("lost", ["last is missing", "last is an older one", "no samples"])
def test_what_a_kill_after_the_last_state_left_out_is_written_by_the_next(
    tmp_path: Path, tiny: None, lost: str
) -> None:
    write_folder(tmp_path / "photos", make_photos(12))
    data = str(tmp_path / "photos")
    fit_model(make_config(tmp_path / "older", data=data, images=24))
    config = make_config(tmp_path / "run", data=data)
    fit_model(config)
    parts = (tmp_path / "run" / "last", tmp_path / "run" / "samples")
    before = [(file, file.read_bytes()) for part in parts for file in sorted(part.rglob("*")) if file.is_file()]
    shutil.rmtree(parts[lost == "no samples"])
    if lost == "last is an older one":
        shutil.copytree(tmp_path / "older" / "last", parts[0])
    fit_model(config, resume=True)
    assert [(file, file.read_bytes()) for file, _ in before] == before
    assert {file for part in parts for file in part.rglob("*") if file.is_file()} == {file for file, _ in before}
