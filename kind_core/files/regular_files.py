"""What is read must be a file with an end: a pipe or a device has none."""

from __future__ import annotations

import stat
from pathlib import Path

_MAX_BYTES = 64 << 20  # settings, manifests and lists of classes are kilobytes


def read_text(file: Path) -> str:
    """The UTF-8 text of a regular file of at most 64 MiB; raises OSError or UnicodeDecodeError."""
    require_regular(file)
    if file.stat().st_size > _MAX_BYTES:
        raise OSError(f"it has {file.stat().st_size} bytes, expected {_MAX_BYTES} or fewer")
    return file.read_text(encoding="utf-8")


def require_regular(file: Path) -> None:
    """Raise OSError where `file` is missing, or is a pipe, a device or a folder."""
    try:
        mode = file.stat().st_mode
    except ValueError as error:
        raise OSError(f"{str(file)!r} is no name of a file: {error}") from error
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{file} is a folder, expected a file")
    if not stat.S_ISREG(mode):
        raise OSError(f"{file} is no regular file")
