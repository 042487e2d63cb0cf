"""Small text files as every editor writes them, Windows' among them: UTF-8 or UTF-16, with a byte order mark or not."""

from __future__ import annotations

import codecs

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def decode_text(data: bytes) -> str:
    """The text that `data` holds, its line ends as `\\n`; raises ValueError where it is none."""
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    text = data.removeprefix(mark).decode(encoding)
    if "\0" in text:
        raise ValueError("it holds NUL characters, expected UTF-8 or a byte order mark")
    return text.replace("\r\n", "\n").replace("\r", "\n")
