"""What is read must be a file with an end: a pipe or a device has none."""

from __future__ import annotations

import codecs
import stat
from pathlib import Path

POINTER_START = b"version https://git-lfs"  # of the few lines of text that Git LFS leaves in a file's place
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_MAX_BYTES = 64 << 20  # settings, manifests and lists of classes are kilobytes


def read_text(file: Path) -> str:
    """The text of a regular file of at most 64 MiB, as any editor writes it; raises OSError, or ValueError for none."""
    require_regular(file)
    if file.stat().st_size > _MAX_BYTES:
        raise OSError(f"it has {file.stat().st_size} bytes, expected {_MAX_BYTES} or fewer")
    data = file.read_bytes()
    if data.startswith(POINTER_START):
        raise OSError("it is a Git LFS pointer: git lfs pull brings the file")
    return decode_text(data)


def decode_text(data: bytes) -> str:
    """The text that `data` holds, its line ends as `\\n`; raises ValueError where it is none."""
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    text = data.removeprefix(mark).decode(encoding)
    if "\0" in text:
        raise ValueError("it holds NUL characters, expected UTF-8 or a byte order mark")
    return text.replace("\r\n", "\n").replace("\r", "\n")


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


def measure_bytes(folder: Path) -> int:
    """The bytes of all files below `folder`."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
