"""How a new file or folder takes its place so that neither a kill nor a power cut leaves nothing there.

What was written is on the disk before its name is; what stands at the name is exchanged with the new in one operation
of the system, where it has one: renameat2 on Linux, renamex_np on macOS.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

_AT_FDCWD = -100
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
_UNSUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})


def publish(new: Path, path: Path, aside: Path) -> None:
    """Move `new` to `path`; what was there ends at `new` or `aside`, beside it, or is gone where both are files.

    Only where the system cannot exchange folders does `path` not exist for a moment: then the old one lies at `aside`.
    Raises OSError, with the old one in its place.
    """
    sync_tree(new)
    if not os.path.lexists(path) or not (_is_folder(path) or _is_folder(new)):
        os.replace(new, path)
    elif not _exchange(new, path):
        path.rename(aside)
        try:
            new.rename(path)
        except BaseException:
            aside.rename(path)
            raise
    sync(path.parent)


def sync_tree(path: Path) -> None:
    """Have the disk hold a file, or a folder with all that is in it; links are not followed."""
    if not _is_folder(path):
        if not path.is_symlink():
            sync(path)
        return
    with os.scandir(path) as entries:
        for entry in entries:
            sync_tree(Path(entry.path))
    sync(path)


def sync(path: Path) -> None:
    """Have the disk hold a file's content or a folder's names; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED or not path.is_dir():  # some network file systems sync no folders
            raise
    finally:
        os.close(descriptor)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change places at once; False where the system or the file system cannot."""
    rename = _system_rename()
    if rename is None or rename(os.fsencode(one), os.fsencode(other)) == 0:
        return rename is not None
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(other))


@cache
def _system_rename() -> Callable[[bytes, bytes], int] | None:
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        return lambda one, other: int(library.renamex_np(one, other, _EXCHANGE))
    if hasattr(library, "renameat2"):
        return lambda one, other: int(library.renameat2(_AT_FDCWD, one, _AT_FDCWD, other, _EXCHANGE))
    return None
