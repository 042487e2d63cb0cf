"""Outputs under kills, power cuts and other writers: the old or the new one stands, whole, and nothing else stays."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import kind_core.files.publishing
from kind_core.errors import OutputError
from kind_core.files.locking import LOCK_SUFFIX
from kind_core.files.staging import OutputKind, check_output, claimed, recover, staged

ANYTHING = OutputKind("anything", lambda path: None)
KILLS = 12
# Replaces a folder of 20 equal files for ever; says when it begins.
WRITER = """
import sys
from pathlib import Path
from kind_core.files.staging import OutputKind, staged
out, number = Path(sys.argv[1]), 0
print("begun", flush=True)
while True:
    number += 1
    with staged(out, OutputKind("anything", lambda path: None), force=True) as folder:
        folder.mkdir()
        for i in range(20):
            (folder / str(i)).write_text(str(number))
    if len(sys.argv) > 2:
        break
"""
# Holds an output until it is killed.
HOLDER = """
import sys, time
from pathlib import Path
from kind_core.files.staging import OutputKind, staged
with staged(Path(sys.argv[1]), OutputKind("anything", lambda path: None), force=True) as folder:
    folder.mkdir()
    print("begun", flush=True)
    time.sleep(600)
"""


@contextmanager
def begun(program: str, out: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", program, str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "begun\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def write(out: Path, text: str = "new") -> None:
    with staged(out, ANYTHING, force=True) as folder:
        folder.mkdir()
        (folder / "a").write_text(text)


def test_a_killed_writer_leaves_one_whole_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    subprocess.run([sys.executable, "-c", WRITER, str(out), "once"], check=True, stdout=subprocess.DEVNULL)
    for kill in range(KILLS):
        with begun(WRITER, out) as process:
            time.sleep(0.004 * kill)
            process.send_signal(signal.SIGKILL)
            process.wait()
        contents = {file.read_text() for file in out.iterdir()}
        assert (len(contents), len(os.listdir(out))) == (1, 20)
    write(out)
    assert os.listdir(tmp_path) == ["out"]


def test_at_no_moment_is_a_replaced_folder_away(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out)
    missing, is_done = [], threading.Event()

    def watch() -> None:
        while not is_done.is_set():
            if not out.exists():
                missing.append(time.monotonic())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for i in range(50):
        write(out, str(i))
    is_done.set()
    watcher.join()
    assert missing == []


def test_the_disk_holds_all_of_it_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    replace, exchange, fsync = os.replace, kind_core.files.publishing._exchange, os.fsync

    def note_sync(descriptor: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("renamed"), replace(*paths)))
    monkeypatch.setattr(
        "kind_core.files.publishing._exchange", lambda *paths: (events.append("exchanged"), exchange(*paths))[1]
    )
    out = tmp_path / "new" / "out"
    write(out)
    assert events == ["a", "out", "renamed", "new", tmp_path.name]  # and the name of the folder made for it
    events.clear()
    write(out)
    assert events == ["a", "out", "exchanged", "new"]


def test_of_two_writers_the_second_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with begun(HOLDER, out) as process:
        for refused in (lambda: write(out), lambda: check_output(out, ANYTHING, force=True)):
            with pytest.raises(
                OutputError, match=rf"{out} is being written by process {process.pid} \(-c on"
            ) as caught:
                refused()
            assert "wait until that has ended" in caught.value.hint
        write(tmp_path / "other")
        assert len(list(tmp_path.glob(".out.*.partial"))) == 1  # what lives is left alone
        assert len(list(tmp_path.glob(f".*{LOCK_SUFFIX}"))) == 1
    write(out)  # its lock and its holder are those of a dead process
    assert sorted(os.listdir(tmp_path)) == ["other", "out"]


def test_what_dead_processes_left_goes_with_the_next_output_of_any_name(tmp_path: Path) -> None:
    with begun(HOLDER, tmp_path / "one"), begun(HOLDER, tmp_path / "two"):
        pass
    assert len(os.listdir(tmp_path)) == 4
    write(tmp_path / "three")
    assert os.listdir(tmp_path) == ["three"]


def test_a_thread_waits_for_no_lock_of_its_own_process_for_ever(tmp_path: Path) -> None:
    out, errors = tmp_path / "out", []

    def second() -> None:
        try:
            write(out)
        except OutputError as error:
            errors.append(error.message)

    with staged(out, ANYTHING) as folder:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(10)
        folder.mkdir()
    assert f"being written by process {os.getpid()}" in errors[0]
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(
    "content", ["", "x", "1\nhost", "one\nhost\nprogram", "9" * 99 + "\nhost\nprogram", "1\nhost\nprogram"]
)
def test_a_lock_file_that_nobody_holds_is_no_lock(content: str, tmp_path: Path) -> None:
    (tmp_path / f".out{LOCK_SUFFIX}").write_text(content)
    check_output(tmp_path / "out", ANYTHING, force=False)
    write(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(("pid", "is_free"), [("dead", True), ("alive", False), ("own", True)])
def test_without_locks_of_the_kernel_the_number_of_the_process_decides(
    pid: str, is_free: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("kind_core.files.locking.fcntl.flock", refuse)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    number = {"dead": dead.pid, "alive": os.getppid(), "own": os.getpid()}[pid]
    (tmp_path / f".out{LOCK_SUFFIX}").write_text(f"{number}\n{socket.gethostname()}\nkind-export")
    if is_free:
        write(tmp_path / "out")
        assert os.listdir(tmp_path) == ["out"]
    else:
        with pytest.raises(OutputError, match=rf"process {number} \(kind-export on"):
            write(tmp_path / "out")


def test_names_as_long_as_the_system_takes_are_written(tmp_path: Path) -> None:
    longest = "é" * 125 + ".kind"  # 255 bytes
    write(tmp_path / longest)
    write(tmp_path / longest)
    assert os.listdir(tmp_path) == [longest]
    with pytest.raises(OutputError, match="its name has 256 bytes, expected 255 at most"):
        check_output(tmp_path / (longest + "s"), ANYTHING, force=False)


def test_a_folder_named_like_a_temporary_is_removed_only_where_it_is_one(tmp_path: Path) -> None:
    for name in (".photos.partial", ".out.a1b2c3d4.partially", "out.a1b2c3d4.partial"):
        (tmp_path / name).mkdir()
    (tmp_path / ".linked.a1b2c3d4.partial").symlink_to(tmp_path / ".photos.partial")
    before = sorted(os.listdir(tmp_path))
    recover(tmp_path)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_number_that_another_process_has_by_now_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("kind_core.files.locking.fcntl.flock", refuse)
    (tmp_path / f".out{LOCK_SUFFIX}").write_text(f"{os.getppid()}\n{socket.gethostname()}\nkind-export\n1")
    write(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]
    (tmp_path / f".out{LOCK_SUFFIX}").write_text("1\nelsewhere\nkind-export\n1")
    with pytest.raises(OutputError, match=r"process 1 \(kind-export on elsewhere\)") as caught:
        write(tmp_path / "out")
    assert f"where it was killed, remove {tmp_path / f'.out{LOCK_SUFFIX}'}" in caught.value.hint
    foreign = tmp_path / ".out.999999-abcdef-a1b2c3d4.partial"  # of a machine that nobody here can ask
    foreign.mkdir()
    recover(tmp_path)
    assert foreign.is_dir()


def test_what_was_written_before_the_clock_jumped_back_is_removed_too(tmp_path: Path) -> None:
    left = tmp_path / f".out.{os.getppid()}-a1b2c3d4.partial"  # of a process whose number is in use again
    left.mkdir()
    os.utime(left, (time.time() + 86_400,) * 2)
    recover(tmp_path)
    assert os.listdir(tmp_path) == []


def test_who_writes_into_a_folder_and_who_replaces_it_exclude_each_other(tmp_path: Path) -> None:
    kind = OutputKind("anything", lambda path: None, heart="a")
    out = tmp_path / "out"
    write(out)
    (tmp_path / "linked").symlink_to(out)
    with begun(HOLDER, out):
        for path in (out, tmp_path / "linked"):
            with pytest.raises(OutputError, match="is being written by process"), claimed(path, kind):
                pass
    with claimed(out, kind):
        thread = threading.Thread(target=lambda: _note_error(errors, out, kind))
        errors: list[str] = []
        thread.start()
        thread.join(10)
    assert f"being written by process {os.getpid()}" in errors[0]
    with claimed(tmp_path / "new" / "run", kind):
        assert os.listdir(tmp_path / "new") == [f".run{LOCK_SUFFIX}"]
    assert not (tmp_path / "new").exists()  # nothing was written into it


def _note_error(errors: list[str], out: Path, kind: OutputKind) -> None:
    try:
        check_output(out, kind, force=True)
    except OutputError as error:
        errors.append(error.message)


def test_a_folder_that_takes_no_lock_beside_it_is_locked_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write(out)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with claimed(out, OutputKind("anything", lambda path: None, heart="a")):
        assert sorted(os.listdir(out)) == [f".a{LOCK_SUFFIX}", "a"]
    assert os.listdir(out) == ["a"]
