"""Ctrl-C while a checkpoint is written: the checkpoint is whole first."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tiny_training import make_config, make_photos
from torch import Tensor

from kind_core.checkpoint import load_checkpoint
from kind_core.files.tensor_files import write_tensors
from kind_train.run.interrupts import hold_interrupts
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
