"""One writer at a time: a lock file beside an output that names its process, and is free as soon as that is dead.

The lock is the kernel's (flock), so a killed process holds none, whatever it left behind. Where a file system has no
such locks, the number of the process in the file and when it began decide, among processes of one machine.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from kind_core.errors import OutputError
from kind_core.stopping import hold_interrupts

LOCK_SUFFIX = ".kind-lock"
MAX_NAME = 255  # bytes of a file name
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL})
_GLANCE_S = 0.02
_WAIT_S = 0.2
_held: dict[Path, int] = {}  # by this process: the thread that holds each


class _Owner(NamedTuple):
    """The process that a lock file names, a line each; `started` is empty where the system does not tell."""

    pid: int
    host: str
    program: str
    started: str


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only one that writes to `path`, which need not exist; its parent must.

    A thread may lock what it holds already. Raises OutputError naming the process that writes there now, and OSError
    where no lock can be made.
    """
    file = _lock_file(path)
    if _held.get(file) == threading.get_ident():
        yield
        return
    descriptor = None
    try:
        with hold_interrupts():
            descriptor = _acquire(file, path)
            _held[file] = threading.get_ident()
        yield
    finally:
        if descriptor is not None:
            with hold_interrupts():
                del _held[file]
                file.unlink(missing_ok=True)  # while held: whoever waits sees that it is gone, and makes its own
                os.close(descriptor)


@contextmanager
def waited_for(path: Path) -> Iterator[None]:
    """`locked`, but where another process writes there now, that is waited for, as long as it lives."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(path))
                break
            except OutputError:
                time.sleep(_WAIT_S)
        yield


def check_unlocked(path: Path) -> None:
    """Raise OutputError where another process writes to `path` now."""
    file = _lock_file(path)
    if _held.get(file) == threading.get_ident():
        return
    with suppress(OSError):
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            _require(descriptor, path, file)
        finally:
            os.close(descriptor)


def remove_stale_locks(folder: Path) -> None:
    """Remove the lock files in `folder` that dead processes left."""
    for file in folder.glob(f".*{LOCK_SUFFIX}"):
        with suppress(OSError):
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                if try_lock(descriptor, otherwise=_is_dead(_read_owner(descriptor), file)):
                    file.unlink(missing_ok=True)
            finally:
                os.close(descriptor)


def try_lock(descriptor: int, *, otherwise: bool) -> bool:
    """Lock an open file or folder unless a process has it; `otherwise` is the answer where the kernel has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return otherwise if error.errno in _NO_LOCKS else False
    return True


def is_alive(pid: int) -> bool:
    """Whether a process of this machine has that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # of another user
    return True


def _acquire(file: Path, path: Path) -> int:
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            _require(descriptor, path, file)
            if _is_at(descriptor, file):
                _sign(descriptor, file)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder has just removed it


def _sign(descriptor: int, file: Path) -> None:
    """Name this process in the lock file that it holds; where the disk is full, the file goes."""
    try:
        os.ftruncate(descriptor, 0)
        owner = _Owner(os.getpid(), socket.gethostname(), Path(sys.argv[0]).name, _read_start(os.getpid()))
        os.write(descriptor, "\n".join(map(str, owner)).encode())
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def _require(descriptor: int, path: Path, file: Path) -> None:
    for _ in range(2):
        owner = _read_owner(descriptor)
        if try_lock(descriptor, otherwise=_is_dead(owner, file)):
            return
        time.sleep(_GLANCE_S)  # it may be somebody who only looks whether it is free
    who = f"process {owner.pid} ({owner.program} on {owner.host})" if owner else "another process"
    hint = "wait until that has ended, or choose another --output"
    if owner and owner.host != socket.gethostname():  # nobody here can see whether it lives
        hint += f"; where it was killed, remove {file}"
    raise OutputError(f"{path} is being written by {who}", hint)


def _is_dead(owner: _Owner | None, file: Path) -> bool:
    """Whether a process that wrote itself into a lock file has ended, as far as its number can tell."""
    if owner is None:
        return True
    if owner.pid == os.getpid():
        return file not in _held
    if owner.host != socket.gethostname():
        return False
    started = _read_start(owner.pid)
    return not is_alive(owner.pid) or (bool(owner.started and started) and owner.started != started)


def _read_owner(descriptor: int) -> _Owner | None:
    lines = os.pread(descriptor, 4096, 0).decode(errors="replace").split("\n")
    is_whole = len(lines) in (3, 4) and len(lines[0]) < 10 and lines[0].isascii() and lines[0].isdigit()
    return _Owner(int(lines[0]), lines[1], lines[2], "".join(lines[3:])) if is_whole else None


def _read_start(pid: int) -> str:
    """When a process began, in ticks since the boot, which no clock moves; empty where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


def _is_at(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(file))
    except FileNotFoundError:
        return False


def _lock_file(path: Path) -> Path:
    name = path.name
    if len(os.fsencode(name)) + len(LOCK_SUFFIX) + 1 > MAX_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return Path(os.path.realpath(path.absolute().parent)) / f".{name}{LOCK_SUFFIX}"
