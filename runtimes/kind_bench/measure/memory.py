"""How much memory this process holds, and whether files are in the system's cache."""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kind_runtimes.documents.case import FileCache

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes, and what they are: `VmHWM` since `begin_peak` on Linux, elsewhere `ru_maxrss` since the process began."""

    bytes: int
    measure: str


def begin_peak() -> Memory:
    """What is resident now, from where the peak is counted on, if the system lets it be reset."""
    if not _STATUS.exists():
        return read_peak()
    with suppress(OSError):  # without it the peak holds that of the imports too, which is what it says then
        _CLEAR.write_text(_RESET_PEAK)
    return Memory(bytes=_read_status("VmRSS"), measure="VmHWM")


def read_peak() -> Memory:
    """The most that was resident."""
    # not ru_maxrss on Linux: a process inherits that of the one that started it
    if _STATUS.exists():
        return Memory(bytes=_read_status("VmHWM"), measure="VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return Memory(bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, measure="ru_maxrss")


def drop_files(files: Iterable[Path]) -> None:
    """Ask the system to forget what it holds of `files`; `file_cache` says whether it did."""
    if not hasattr(os, "posix_fadvise"):
        return
    for file in files:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())  # what was not written yet cannot be forgotten
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def file_cache(files: Iterable[Path]) -> FileCache:
    """Whether `files` are in memory: `warm` if the start, middle and end of all are, `cold` if none is."""
    held = {_is_cached(file) for file in files}
    if held == {True}:
        return "warm"
    return "cold" if held == {False} else "unknown"


def _is_cached(file: Path) -> bool | None:
    if not hasattr(os, "RWF_NOWAIT"):
        return None
    size = file.stat().st_size
    with file.open("rb") as stream:
        seen = {_reads_at_once(stream.fileno(), min(at, size - 1)) for at in (0, size // 2, size - 1) if size}
    return seen.pop() if len(seen) == 1 else None


def _reads_at_once(descriptor: int, offset: int) -> bool | None:
    try:
        os.preadv(descriptor, [bytearray(1)], offset // _PAGE * _PAGE, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:  # a file system that cannot tell
        return None
    return True


def _read_status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
