"""What file managers, archivers and storage boxes leave among a user's files: nobody's work, read nowhere."""

from __future__ import annotations

from pathlib import Path

# Of macOS, of Windows, of Synology and QNAP, of Linux.
_LITTER = {".ds_store", ".localized", "icon\r", "__macosx"}
_LITTER |= {"thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "recycler", "system volume information"}
_LITTER |= {"@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "lost+found"}
_APPLE_DOUBLE = "._"


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is what a system leaves everywhere."""
    return name.casefold() in _LITTER or name.startswith(_APPLE_DOUBLE)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is none that its user means: hidden, or left by a system."""
    return name.startswith(".") or is_litter(name)


def is_bare(folder: Path) -> bool:
    """Whether a folder holds nothing, or nothing but what a system leaves."""
    return all(is_litter(item.name) for item in folder.iterdir())
