"""The tables that ship with the package, `data/*.toml`."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any


def read_table(name: str) -> Any:
    """The whole of `data/<name>.toml`."""
    return tomllib.loads((files("kind_bench") / "data" / f"{name}.toml").read_text(encoding="utf-8"))
