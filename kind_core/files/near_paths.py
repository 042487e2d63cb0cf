"""What a mistyped path may have meant. No torch is loaded."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

_ALIKE = 0.65
_URL = re.compile(r"[a-z]{2,}:/+", re.IGNORECASE)  # a Path has one slash of the two; `C:/photos` has one letter before


def suggest_path(path: Path) -> str:
    """`; did you mean run/best?` where something of a like name is there, else empty: it is put behind a hint."""
    if _URL.match(path.as_posix()):
        return "; no URL is opened: download it first, or write hub:ORG/NAME for what is on the Hub"
    near = None if os.path.exists(path) else find_near(path)
    return "" if near is None else f"; did you mean {near}?"


def find_near(path: Path) -> Path | None:
    """The path that is there and is spelled most alike, part by part; None where a part has nothing near it."""
    found = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        if os.path.exists(found / part):  # False also of a name that no disk takes
            found /= part
            continue
        try:
            names = sorted(item.name for item in found.iterdir())
        except OSError:
            return None
        near = max(names, key=lambda name: _likeness(part, name), default="")
        if _likeness(part, near) < _ALIKE:
            return None
        found /= near
    return found


def _likeness(typed: str, name: str) -> float:
    """From 0 to 1; a suffix that was left out, or is the same, says nothing."""
    suffix = Path(name).suffix
    if suffix and (typed.endswith(suffix) or "." not in typed):
        typed, name = typed.removesuffix(suffix), name.removesuffix(suffix)
    return difflib.SequenceMatcher(None, typed, name).ratio()
