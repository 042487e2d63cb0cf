"""Ctrl-C and SIGTERM: a run ends with a save, and what is being written is whole first."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tiny_training import make_config, make_photos
from torch import Tensor

from kind_core.checkpoint import load_checkpoint
from kind_core.files.tensor_files import write_tensors
from kind_core.stopping import StoppedError, describe_ignored, exit_code, hold_interrupts, stoppable
from kind_train.run.metrics import Progress
from kind_train.run.step import Stepper
from kind_train.run.trainer import Trainer


@pytest.fixture(autouse=True)
def _ordinary_interrupts() -> Iterator[None]:
    """Tests started in the background of a shell ignore Ctrl-C."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def test_an_interrupt_is_delivered_after_the_body() -> None:
    done: list[str] = []

    @hold_interrupts()
    def work() -> None:
        for step in ("first", "second"):
            signal.raise_signal(signal.SIGINT)
            done.append(step)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["first", "second"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)  # and from then on at once


def test_an_error_in_the_body_comes_out_where_there_was_no_interrupt() -> None:
    with pytest.raises(ZeroDivisionError), hold_interrupts():
        _ = 1 / 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ignored_interrupts_stay_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with hold_interrupts():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_another_thread_than_the_main_one_is_left_alone() -> None:
    done: list[bool] = []

    def work() -> None:
        with hold_interrupts():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


@pytest.mark.usefixtures("tiny")
def test_a_checkpoint_that_is_being_written_is_finished_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt_and_write(file: Path, tensors: Mapping[str, Tensor]) -> None:
        signal.raise_signal(signal.SIGINT)
        write_tensors(file, tensors)

    monkeypatch.setattr("kind_core.files.tensor_files.write_tensors", interrupt_and_write)
    photos = make_photos()
    with pytest.raises(KeyboardInterrupt):
        Trainer(make_config(tmp_path), photos, photos).run()
    assert json.loads((tmp_path / "state" / "state.json").read_text())["step"] == 5
    load_checkpoint(tmp_path / "last")
    assert not list(tmp_path.rglob("*.partial"))
    assert Trainer(make_config(tmp_path), photos, photos, resume=True).step == 5


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_asked_to_stop_saves_and_goes_on_as_if_it_had_not_been(
    tmp_path: Path, number: int, request: pytest.FixtureRequest
) -> None:
    photos, stopped, whole = make_photos(), tmp_path / "stopped", tmp_path / "whole"
    before = signal.getsignal(number)
    if before == signal.SIG_IGN:  # nohup, or a script's background: which a run obeys
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(number, before))

    def stop(progress: Progress) -> None:
        if progress.step == 2:
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt) as caught, stoppable():
        Trainer(make_config(stopped), photos, photos).run(stop)
    assert exit_code(caught.value) == 128 + number
    assert json.loads((stopped / "state" / "state.json").read_text())["step"] == 3  # none is saved before the fifth
    losses = [
        Trainer(make_config(stopped), photos, photos, resume=True).run(),
        Trainer(make_config(whole), photos, photos).run(),
    ]
    assert losses[0] == losses[1]
    for name in ("state/state.safetensors", "best/learngene.safetensors", "last/learngene.safetensors"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()
    lines = [[json.loads(one) for one in (run / "metrics.jsonl").read_text().splitlines()] for run in (stopped, whole)]
    for one in (*lines[0], *lines[1]):
        one.pop("images_per_second", None)
    assert lines[0] == lines[1]


@pytest.mark.usefixtures("tiny")
def test_asked_twice_a_run_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: object) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Stepper, "take", stop)
    with pytest.raises(KeyboardInterrupt):
        Trainer(make_config(tmp_path), make_photos(), make_photos()).run()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("tiny")
def test_a_run_that_is_done_before_it_can_stop_is_done(tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.step == progress.num_steps:
            signal.raise_signal(signal.SIGINT)

    Trainer(make_config(tmp_path), make_photos(), make_photos()).run(stop)


def test_a_command_is_ended_by_sigterm_as_tidily_as_by_ctrl_c() -> None:
    done: list[str] = []

    @stoppable()
    def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            done.append("tidied up")

    with pytest.raises(StoppedError):
        work()
    assert done == ["tidied up"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_where_ctrl_c_is_ignored_another_way_is_told() -> None:
    assert describe_ignored() is None
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert f"kill {os.getpid()} stops it" in (describe_ignored() or "")
