"""JSON files that were written elsewhere, read without trust."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kind_core.errors import KindError

_MAX_BYTES = 64 << 20  # settings and lists of classes are kilobytes


def read_object(file: Path, error: type[KindError], hint: str = "") -> dict[str, Any]:
    """The object that `file` holds; raises `error` in one line, with `hint`, where it holds none.

    NaN and infinities, which other programs write, are read as numbers.
    """
    try:
        data = json.loads(_read_text(file))
        json.dumps(data, ensure_ascii=False).encode()  # half a surrogate pair is no text, and could not be written
    except OSError as reason:
        raise error(f"cannot read {file}: {reason.strerror or reason}", hint) from reason
    except (ValueError, RecursionError) as reason:
        raise error(f"{file} is not JSON: {reason}", hint) from reason
    if not isinstance(data, dict):
        raise error(f"{file} holds a {type(data).__name__}, expected an object", hint)
    return data


def _read_text(file: Path) -> str:
    if file.exists() and not file.is_file():  # a pipe or a device has no end
        raise OSError("it is no regular file")
    if file.stat().st_size > _MAX_BYTES:
        raise OSError(f"it has {file.stat().st_size} bytes, expected {_MAX_BYTES} or fewer")
    return file.read_text(encoding="utf-8")
