"""Where an output is written before it takes its place: a hidden folder beside it that names its process.

What dead processes left of them is finished or removed by the next one that writes into the same folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kind_core.files.locking import is_alive, remove_stale_locks, try_lock
from kind_core.stopping import hold_interrupts

REPLACED = "replaced"
_TEMPORARIES = ("temporary", "temporary-")  # the second beside an output of the first name
_HOLDER = re.compile(r"\..+\.((?P<pid>\d+)-)?((?P<host>[0-9a-f]{6})-)?[a-z0-9_]{8}\.partial")
_MAX_SHOWN = 200  # bytes of a name that its holder shows: with the rest of its own name it must be one
_YOUNG_S = 60.0


@contextmanager
def holder_of(path: Path) -> Iterator[Path]:
    """A new folder beside `path` that says whose it is."""
    shown = os.fsencode(path.name)[:_MAX_SHOWN].decode(errors="ignore")
    prefix = f".{shown}.{os.getpid()}-{_host_mark()}-"
    holder, descriptor = None, None
    try:
        with hold_interrupts():
            holder = Path(tempfile.mkdtemp(prefix=prefix, suffix=".partial", dir=path.parent))
            descriptor = os.open(holder, os.O_RDONLY)
            try_lock(descriptor, otherwise=True)
        yield holder
    finally:
        if holder is not None:
            with hold_interrupts():
                shutil.rmtree(holder, ignore_errors=True)
                if descriptor is not None:
                    os.close(descriptor)


@contextmanager
def temporaries_beside(draft: Path) -> Iterator[None]:
    """Have this process and those that it starts put their temporaries beside what `staged` yields, for the body.

    In the system's own folder of temporaries a killed process leaves what libraries write for a moment for good.
    """
    place = draft.with_name(next(name for name in _TEMPORARIES if name != draft.name))
    before = tempfile.tempdir, os.environ.get("TMPDIR")
    place.mkdir()
    tempfile.tempdir = os.environ["TMPDIR"] = str(place.absolute())
    try:
        yield
    finally:
        tempfile.tempdir = before[0]
        if before[1] is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before[1]


def is_holder(name: str) -> bool:
    """Whether a folder of this name is one that `holder_of` made."""
    return _HOLDER.fullmatch(name) is not None


def _host_mark() -> str:
    """This machine, in the name of a folder that others may see, too."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


def recover(folder: Path) -> None:
    """Finish or undo what killed processes left of their `staged` outputs in `folder`; what lives is left alone."""
    try:
        holders = sorted(folder.iterdir())
    except OSError:  # it is not there, or nobody may look into it
        return
    for holder in holders:
        match = _HOLDER.fullmatch(holder.name)
        if match is not None:
            with suppress(OSError):
                _clear(holder, _is_dead(match["pid"], match["host"]))
    remove_stale_locks(folder)


def _is_dead(pid: str | None, host: str | None) -> bool:
    """Whether the process in the name of a holder has ended, as far as that tells."""
    return pid is None or (host in (None, _host_mark()) and not is_alive(int(pid)))


def _clear(holder: Path, is_dead: bool) -> None:
    """Remove the holder of a dead process.

    Killed where the system exchanges nothing, its output may be missing, with the old and the new one in the holder.
    """
    descriptor = os.open(holder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        age_s = abs(time.time() - os.fstat(descriptor).st_mtime)  # a clock that jumped back makes nothing young
        is_new = age_s < _YOUNG_S  # made, and not locked yet
        if not try_lock(descriptor, otherwise=is_dead) or (is_new and not is_dead):
            return
        old = holder / REPLACED
        drafts = [one for one in holder.iterdir() if one != old]
        for new in [one for one in drafts if len(drafts) == 1 or one.name not in _TEMPORARIES]:
            path = holder.parent / new.name
            if os.path.lexists(old) and not os.path.lexists(path):
                new.rename(path)  # the old one is moved only when the new one is whole
        shutil.rmtree(holder, ignore_errors=True)
    finally:
        os.close(descriptor)
