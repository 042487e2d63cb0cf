"""The kits: this package's runtime in Swift and Kotlin, as the sources that an app adds to its project."""

from __future__ import annotations

from pathlib import Path

KITS = ("ios", "android")


def kit_folder(name: str) -> Path:
    """Where the kit `name` lies."""
    return Path(__file__).parent / name
