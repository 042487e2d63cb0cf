"""JSON files that were written elsewhere, read without trust."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from kind_core.errors import KindError
from kind_core.files.regular_files import read_text

_MAX_DIGITS = 300  # what is longer is no float
_MAX_DEPTH = 100  # who shows such a value, or checks it, goes as deep


def read_object(file: Path, error: type[KindError], hint: str = "") -> dict[str, Any]:
    """The object that `file` holds; raises `error` in one line, with `hint`, where it holds none.

    NaN and infinities, which other programs write, are read as numbers.
    """
    try:
        data = read_json(file)
    except OSError as reason:
        raise error(f"cannot read {file}: {reason.strerror or reason}", hint) from reason
    except ValueError as reason:
        raise error(f"{file} is not JSON: {reason}", hint) from reason
    if not isinstance(data, dict):
        raise error(f"{file} holds a {type(data).__name__}, expected an object", hint)
    return data


def read_texts(file: Path, error: type[KindError], hint: str) -> list[str]:
    """The list of texts that `file` holds; raises `error` in one line, with `hint`, where it holds none."""
    try:
        texts = read_json(file)
    except (OSError, ValueError) as reason:
        raise error(f"{file} is damaged: {reason}", hint) from reason
    if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
        raise error(f"{file} is damaged, expected a list of texts", hint)
    return texts


def read_json(file: Path, *, is_strict: bool = False) -> Any:
    """What `file` holds; raises OSError where it cannot be read, ValueError where it is no JSON (see `parse_json`)."""
    return parse_json(read_text(file), is_strict=is_strict)


def parse_json(text: str, *, is_strict: bool = False) -> Any:
    """What `text` says; raises ValueError of one line where it is no JSON or nested too deeply.

    `is_strict`: NaN and infinities, which are no JSON, are refused too.
    """
    constant, number = (_refuse, _parse_float) if is_strict else (None, None)
    try:
        data = json.loads(text, parse_int=_parse_int, parse_constant=constant, parse_float=number)
        json.dumps(data, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeEncodeError as error:  # it could not be written either
        raise ValueError("it holds half a surrogate pair, which is no text") from error
    _require_shallow(data)
    return data


def _require_shallow(data: Any) -> None:
    level, depth = [data], 0
    while level:
        if depth > _MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        parts = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level, depth = [inner for part in parts for inner in part], depth + 1


def _parse_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits} is larger than any number here")
    return number


def _parse_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"it holds a number of {len(digits)} digits")
    return int(digits)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
