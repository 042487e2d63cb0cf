"""An attribute of somebody else's class or module, replaced for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(owner: Any, name: str, stand_in: object) -> Iterator[None]:
    """`stand_in` as attribute `name` of a class or module."""
    before = vars(owner).get(name)
    setattr(owner, name, stand_in)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)
