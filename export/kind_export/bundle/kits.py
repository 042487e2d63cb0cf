"""Kits: the sources that an app needs to run a bundle, beside the programs they run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from kind_runtimes.kits import kit_folder

_BUILD_OUTPUT = shutil.ignore_patterns(".*", "build", "__pycache__")


def write_kits(bundle: Path, kits: Sequence[str]) -> None:
    """Copy the sources of each kit into a folder of its name."""
    for kit in kits:
        shutil.copytree(kit_folder(kit), bundle / kit, ignore=_BUILD_OUTPUT, copy_function=shutil.copyfile)
