"""Kits: the sources that an app needs to run a bundle, beside the programs they run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from kind_core.files.staging import link_file
from kind_export.request import KIT_TARGETS
from kind_runtimes.bundle import MANIFEST_NAME
from kind_runtimes.golden import GOLDEN_NAME
from kind_runtimes.kits import APP_FOLDERS, kit_folder
from kind_runtimes.manifest import Manifest

_BUILD_OUTPUT = shutil.ignore_patterns(".*", "build", "__pycache__")


def write_kits(bundle: Path, kits: Sequence[str]) -> None:
    """Copy the sources of each kit into a folder of its name."""
    for kit in kits:
        shutil.copytree(kit_folder(kit), bundle / kit, ignore=_BUILD_OUTPUT, copy_function=shutil.copyfile)


def write_app_folders(bundle: Path, manifest: Manifest, kits: Sequence[str]) -> None:
    """Lay what an app ships apart for each kit: the manifest, the programs that it runs and the golden data.

    The kits hold each compute unit of a device against the last.

    The files are the bundle's own where the file system can link them, so they cost nothing.
    """
    for kit in kits:
        folder, run = bundle / APP_FOLDERS[kit], tuple(f"{target}/" for target in KIT_TARGETS[kit])
        needed = (name for name in manifest.files if name == GOLDEN_NAME or name.startswith(run))
        for name in (MANIFEST_NAME, *needed):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            link_file(bundle / name, folder / name)
