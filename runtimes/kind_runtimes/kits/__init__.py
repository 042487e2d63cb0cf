"""The kits: this package's runtime in Swift and Kotlin, as the sources that an app adds to its project."""

from __future__ import annotations

from pathlib import Path

KITS = ("ios", "android")
# In a bundle: what an app ships of it, beside the kit of each system.
APP_FOLDERS = {"ios": "ios/model.kind", "android": "android/assets/model.kind"}


def kit_folder(name: str) -> Path:
    """Where the kit `name` lies."""
    return Path(__file__).parent / name
