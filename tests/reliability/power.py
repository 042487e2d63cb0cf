"""What a disk would hold after a power cut, if it kept nothing that was not synced.

A `Recorder` in the process notes each file's content and each folder's names when they are synced; `cut_power` makes a
tree of those notes alone. A name that was never synced is gone, content that was never synced is empty. The folder must
be on a file system that gives no inode number twice (tmpfs).
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path


class Recorder:
    """Writes down what a sync made durable: by inode, the content of a file or the names in a folder."""

    def __init__(self, shadow: Path) -> None:
        self._shadow = shadow

    def record(self, descriptor: int) -> None:
        """Note what an open file or folder is now."""
        status = os.fstat(descriptor)
        draft = self._shadow / f"draft-{os.getpid()}"
        if stat.S_ISDIR(status.st_mode):
            names = {entry.name: _describe(entry.path) for entry in os.scandir(f"/proc/self/fd/{descriptor}")}
            draft.write_text(json.dumps(names))
        else:
            shutil.copyfile(f"/proc/self/fd/{descriptor}", draft)
        draft.rename(self._shadow / str(status.st_ino))

    def record_tree(self, folder: Path) -> None:
        """Note a whole folder, as one that has been there for long."""
        for place, _, files in os.walk(folder):
            for path in (Path(place), *(Path(place, name) for name in files)):
                descriptor = os.open(path, os.O_RDONLY)
                self.record(descriptor)
                os.close(descriptor)


def cut_power(folder: Path, shadow: Path, *, keeps_names: bool) -> None:
    """Make of `folder` what the disk holds of it; `keeps_names`: names are journalled, as on most file systems."""
    lost = folder.with_name(f"{folder.name}-lost")
    folder.rename(lost)
    _build(lost, lost.stat().st_ino, folder, shadow, keeps_names=keeps_names)
    shutil.rmtree(lost)


def _describe(path: str) -> list[int]:
    status = os.lstat(path)
    return [status.st_ino, int(stat.S_ISDIR(status.st_mode))]


def _build(live: Path, inode: int, place: Path, shadow: Path, *, keeps_names: bool) -> None:
    place.mkdir()
    note = shadow / str(inode)
    if keeps_names:
        names = {one.name: _describe(str(one)) for one in live.iterdir()}
    else:
        names = json.loads(note.read_text()) if note.exists() else {}
    for name, (number, is_folder) in names.items():
        if is_folder:
            _build(live / name, number, place / name, shadow, keeps_names=keeps_names)
        elif (shadow / str(number)).exists():
            shutil.copyfile(shadow / str(number), place / name)
        else:
            (place / name).touch()
