"""Runs a command line in a forked process, where everything is loaded already, with something that happens to it.

The process sees its own events: what it opens for writing, renames, makes, removes, locks and syncs in its folder. A
trouble comes at one of them, or after a share of the time; the process and its files are otherwise those of a user.
"""

from __future__ import annotations

import importlib
import io
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kind_core.files import publishing
from reliability.power import Recorder

_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "fcntl.flock"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_LIMIT_S = 300.0


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What happens to a process: `signal` at event number `at_event`, or after `after_s`.

    `pause_at`: it says at that event that it is there and waits. `shadow`: a folder for what the disk would hold of its
    writes if the power failed.
    """

    signal: int = 0
    at_event: int | None = None
    after_s: float | None = None
    pause_at: int | None = None
    shadow: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended: its exit code, or minus a signal; `modules` are what it loaded."""

    code: int
    stdout: str
    stderr: str
    events: int
    seconds: float
    peak_bytes: int
    modules: tuple[str, ...] = field(repr=False, default=())


class Child:
    """A command that runs in `folder`; `go` lets it on where it waits, `end` waits for its end."""

    def __init__(self, module: str, arguments: Sequence[str], folder: Path, trouble: Trouble) -> None:
        self._trouble = trouble
        self._notes = Path(tempfile.mkdtemp(prefix="notes"))
        self._ready, ready = os.pipe()
        going, self._going = os.pipe()
        self._began_s = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            _be_child(module, arguments, folder, trouble, self._notes, ready, going)
        for descriptor in (ready, going):
            os.close(descriptor)

    def wait_until_paused(self) -> bool:
        """Whether it came as far as its pause."""
        return os.read(self._ready, 1) == b"p"

    def go(self) -> None:
        """Let it on."""
        os.write(self._going, b"g")

    def end(self) -> Ended:
        """Wait for its end, at most five minutes."""
        if self._trouble.after_s is not None:
            timer = threading.Timer(self._trouble.after_s, self._strike)
            timer.start()
        deadline_s = time.monotonic() + _LIMIT_S
        while (found := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline_s:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.002)
        if self._trouble.after_s is not None:
            timer.cancel()
            timer.join()
        for descriptor in (self._ready, self._going):
            os.close(descriptor)
        ended = self._read(os.waitstatus_to_exitcode(found[1]))
        shutil.rmtree(self._notes)
        return ended

    def _strike(self) -> None:
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            os.kill(self.pid, self._trouble.signal)

    def _read(self, code: int) -> Ended:
        def read(name: str) -> str:
            file = self._notes / name
            return file.read_text(errors="replace") if file.exists() else ""

        events, peak = ([int(one) for one in (read("counts").split() or ("0", "0"))])[:2]
        return Ended(
            code=code,
            stdout=read("stdout"),
            stderr=read("stderr"),
            events=events,
            seconds=time.monotonic() - self._began_s,
            peak_bytes=peak,
            modules=tuple(read("modules").split()),
        )


def run_child(module: str, arguments: Sequence[str], folder: Path, trouble: Trouble = Trouble()) -> Ended:
    """The end of a command that met `trouble`."""
    return Child(module, arguments, folder, trouble).end()


def preload(modules: Sequence[str]) -> None:
    """Load what a command loaded, so that its next runs begin with their work; what cannot be loaded so is left."""
    for name in modules:
        if name not in sys.modules and not name.startswith("__"):
            try:
                importlib.import_module(name)
            except Exception:  # of others: a module that wants another one before it
                continue


def _be_child(
    module: str, arguments: Sequence[str], folder: Path, trouble: Trouble, notes: Path, ready: int, going: int
) -> None:
    """Never returns."""
    code = 70
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(notes / name, os.O_WRONLY | os.O_CREAT), number)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), write_through=True)
        os.chdir(folder)
        place = folder / "tmp"
        place.mkdir(exist_ok=True)
        os.environ["TMPDIR"], tempfile.tempdir = str(place), None
        torch.set_num_threads(1)
        watcher = _Watcher(folder, trouble, ready, going)
        watcher.watch()
        sys.argv = [module.partition(".")[0].replace("_", "-"), *arguments]
        main: Callable[[], Any] = importlib.import_module(module).main
        try:
            main()
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # the command has ended
        (notes / "counts").write_text(f"{watcher.count} {watcher.peak_bytes}")
        (notes / "modules").write_text("\n".join(sys.modules))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


class _Watcher:
    """Counts the events of this process in `folder`, and has the trouble come."""

    def __init__(self, folder: Path, trouble: Trouble, ready: int, going: int) -> None:
        self.count, self.peak_bytes = 0, 0
        self._folder, self._trouble, self._ready, self._going = str(folder), trouble, ready, going
        self._is_busy, self._pid = False, os.getpid()
        self._used_bytes = _used_bytes(folder)
        self._recorder = None if trouble.shadow is None else Recorder(trouble.shadow)

    def watch(self) -> None:
        """From now on."""
        fsync, exchange = os.fsync, publishing._exchange

        def note_sync(descriptor: int) -> None:
            self._note()
            fsync(descriptor)
            if self._recorder is not None:
                self._is_busy = True
                self._recorder.record(descriptor)
                self._is_busy = False

        def note_exchange(one: Path, other: Path) -> bool:
            self._note()
            is_done = exchange(one, other)
            self._note()
            return is_done

        os.fsync, publishing._exchange = note_sync, note_exchange
        sys.addaudithook(self._hear)

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        if self._is_busy or os.getpid() != self._pid:
            return
        if event == "open" and isinstance(given[2], int) and given[2] & _WRITING:
            if str(given[0]).startswith(self._folder) or not str(given[0]).startswith("/"):
                self._note()
        elif event in _CHANGES:
            self._note()

    def _note(self) -> None:
        self._is_busy = True
        self.count += 1
        self.peak_bytes = max(self.peak_bytes, _used_bytes(Path(self._folder)) - self._used_bytes)
        if self.count == self._trouble.at_event:
            os.kill(os.getpid(), self._trouble.signal)
        if self.count == self._trouble.pause_at:
            os.write(self._ready, b"p")
            os.read(self._going, 1)
        self._is_busy = False


def _used_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize
