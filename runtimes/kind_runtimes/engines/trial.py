"""A program is tried in a copy of this process first, where its engine ends the process at a file that it cannot take.

ExecuTorch checks much of a file, but gives up on the rest by abort(), which no caller can catch. The copy is a fork: it
has the engine loaded and costs no more than the call itself. Nothing is tried outside Linux, where a fork of a process
that has frameworks and threads may fail by itself.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO

from kind_core.errors import BundleError

_CRASHES = frozenset({signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP})
_PATIENCE_S = 120.0  # then this process finds out by itself
_PAUSE_S = 0.002


_survived: set[tuple[str, int, int]] = set()


def require_survivable(what: str, file: Path, call: Callable[[], object]) -> None:
    """Raise BundleError, in a line that begins with `what`, where `call` would end this process at a broken `file`.

    What it raises is nobody's business here: who calls it next is told. A file that has not changed is tried once.
    """
    if sys.platform != "linux" or not file.exists():
        return
    about = file.stat()
    tried = (f"{what} {file.resolve()}", about.st_mtime_ns, about.st_size)
    if tried in _survived:
        return
    with tempfile.TemporaryFile() as log:
        crash = _wait(_start(call, log))
        if crash is not None:
            log.seek(0)
            lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
            reason = f": {lines[-1]}" if lines else ""
            raise BundleError(
                f"{what}: the engine ends the process with {crash.name}{reason}", "copy or export the bundle again"
            )
    _survived.add(tried)


def _start(call: Callable[[], object], log: IO[bytes]) -> int:
    """The id of a copy of this process that makes the call, and what it writes goes to `log`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads are not in the copy, and it needs none
        child = os.fork()
    if child == 0:
        try:
            faulthandler.disable()  # who asked for it hears of this process alone
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            for stream in (1, 2):
                os.dup2(log.fileno(), stream)
            call()
        finally:
            os._exit(0)
    return child


def _wait(child: int) -> signal.Signals | None:
    """The signal of a crash; None where the child ended otherwise, or not in time."""
    end = time.monotonic() + _PATIENCE_S
    try:
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                code = -os.waitstatus_to_exitcode(status)
                child = 0
                return signal.Signals(code) if code in _CRASHES else None
            time.sleep(_PAUSE_S)
        return None
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
