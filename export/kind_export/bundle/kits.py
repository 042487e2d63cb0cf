"""Kits: the sources that an app needs to run a bundle, beside the programs they run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from kind_core.errors import ConfigError, TargetError
from kind_runtimes.kits import KITS, kit_folder

KIT_TARGETS = {"ios": "coreml", "android": "onnx"}
_BUILD_OUTPUT = shutil.ignore_patterns(".*", "build", "__pycache__")


def check_kits(kits: Sequence[str], targets: Sequence[str]) -> None:
    """Raise a KindError for an unknown kit, or for one whose target is not exported."""
    for kit in kits:
        if kit not in KITS:
            raise ConfigError(f"unknown kit {kit!r}, expected {' or '.join(KITS)}", "use --kit NAME")
        target = KIT_TARGETS[kit]
        if target not in targets:
            raise TargetError(
                f"kit {kit!r} runs {target} programs, but the target is {', '.join(targets)}", f"add --target {target}"
            )


def write_kits(bundle: Path, kits: Sequence[str]) -> None:
    """Copy the sources of each kit into a folder of its name."""
    for kit in kits:
        shutil.copytree(kit_folder(kit), bundle / kit, ignore=_BUILD_OUTPUT, copy_function=shutil.copyfile)
