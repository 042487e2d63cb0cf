"""Which files of a folder are photos, and which are left out, why and how many: nothing is lost in silence."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from kind_core.errors import DataError
from kind_core.files.litter import is_hidden
from kind_train.data.decoding import is_photo_name

HEIC_SUFFIXES = frozenset({".heic", ".heif"})
_NO_SUFFIX = "without suffix"
# What this project's programs write, known by files that such a folder holds: all of the first, one of the second.
_OUTPUTS = {
    "a run": ({"options.yaml"}, {"state", "best", "last", "metrics.jsonl"}),
    "a cache of latents": ({"cache.json", "shards"}, {"autoencoder"}),
    "a cache of embedded captions": ({"text_embeddings.json"}, {"shards"}),
    "a bundle": ({"manifest.json"}, {"golden.safetensors", "report.json"}),
    "a checkpoint": ({"config.json", "learngene.safetensors"}, {"tailors"}),
}


def describe_output(names: set[str]) -> str | None:
    """What a folder with files of these names is of what this project's programs write; None for any other."""
    return next((what for what, (all_of, some) in _OUTPUTS.items() if all_of <= names and some & names), None)


def show_path(path: Path) -> str:
    """A path as text that can be printed: bytes of a name that are no text are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@dataclass
class LeftOut:
    """What is not read below a folder: numbers by suffix, and by reason with an example."""

    suffixes: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, list[Path]] = field(default_factory=dict)

    def add_file(self, path: Path) -> None:
        """A file of no format that is read."""
        self.suffixes[path.suffix.lower() or _NO_SUFFIX] += 1

    def take_back(self, paths: Iterable[Path]) -> None:
        """Of the files of no format that is read, forget some that were read after all."""
        self.suffixes -= Counter(path.suffix.lower() for path in paths)

    def add(self, path: Path, reason: str) -> None:
        """Something else that is not read; `reason` in words that follow its name."""
        self.reasons.setdefault(reason, []).append(path)

    def merge(self, other: LeftOut) -> None:
        """Count what another one has counted, too."""
        self.suffixes += other.suffixes
        for reason, paths in other.reasons.items():
            self.reasons.setdefault(reason, []).extend(paths)

    def describe_suffixes(self) -> str:
        """'3 .heic, 1 .mov'; nothing where there is none."""
        order = sorted(self.suffixes.items(), key=lambda one: (-one[1], one[0]))
        return ", ".join(f"{count} {suffix}" for suffix, count in order)

    @property
    def hint(self) -> str:
        """The next step for formats that can be read after it."""
        is_heic = not HEIC_SUFFIXES.isdisjoint(self.suffixes)
        return "pip install pillow-heif to read .heic, or convert them" if is_heic else ""

    def lines(self, place: str) -> tuple[str, ...]:
        """A line for each reason."""
        lines = []
        if self.suffixes:
            hint = f"; {self.hint}" if self.hint else ""
            lines.append(f"left out in {place}: {self.describe_suffixes()}, of no format that is read{hint}")
        for reason, paths in self.reasons.items():
            count = f"{len(paths)} such as " if len(paths) > 1 else ""
            lines.append(f"left out {count}{show_path(paths[0])}: {reason}")
        return tuple(lines)


class PhotoFinder:
    """Finds the photos below folders of one data set; `left_out` counts the rest.

    Links are followed, each folder once in a class, and never up to a folder that holds the data. `output`, what the
    command itself writes, and the runs, caches, bundles and checkpoints of earlier commands are no data.
    """

    def __init__(self, root: Path, output: Path | None) -> None:
        here = root.resolve()
        self._above = {identify(folder) for folder in (here, *here.parents)}
        self._output = None if output is None else output.resolve()

    def find(self, folder: Path, left_out: LeftOut) -> list[Path] | None:
        """The photos below `folder`, in the order of their paths; None where it is no data itself."""
        photos: list[Path] = []
        waiting, seen = [folder], set[tuple[int, int]]()
        while waiting:
            place = waiting.pop()
            items = self._look_into(place, seen, left_out)
            if items is None and place == folder:
                return None
            waiting += sort_items(place, items or (), photos.append, left_out)
        return sorted(photos)

    def describe_own(self, folder: Path, names: set[str]) -> str | None:
        """Why a folder, which holds `names`, is no data because the project's programs write it; None where it is."""
        if self._output is not None and folder.resolve() == self._output:
            return "it is the output of this command"
        made = describe_output(names)
        return None if made is None else f"it is {made} of this program"

    def _look_into(self, folder: Path, seen: set[tuple[int, int]], left_out: LeftOut) -> list[os.DirEntry[str]] | None:
        """What is in a folder; None where that was seen before, or is no data."""
        identity = identify(folder)
        if identity in self._above:
            left_out.add(folder, "it leads up to a folder that it lies in")
            return None
        if identity in seen:
            return None
        seen.add(identity)
        items = list_folder(folder)
        reason = self.describe_own(folder, {item.name for item in items})
        if reason is not None:
            left_out.add(folder, reason)
            return None
        return items


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder and not hidden, by name; raises DataError where it cannot be looked into."""
    try:
        with os.scandir(folder) as items:
            return sorted((item for item in items if not is_hidden(item.name)), key=lambda item: item.name)
    except OSError as error:
        message = f"cannot read the folder {show_path(folder)}: {error.strerror or error}"
        raise DataError(message, "change its permissions, or move it out of the data") from error


def sort_items(
    folder: Path, items: Iterable[os.DirEntry[str]], take_photo: Callable[[Path], None], left_out: LeftOut
) -> list[Path]:
    """The folders among what a folder holds; photos are taken, and the rest is left out."""
    folders = []
    for item in items:
        path, mode = folder / item.name, _read_mode(item)
        if stat.S_ISDIR(mode):
            folders.append(path)
        elif not stat.S_ISREG(mode):
            left_out.add(path, "it is a pipe, a socket or a device" if mode else "it leads nowhere")
        elif is_photo_name(item.name):
            take_photo(path)
        else:
            left_out.add_file(path)
    return folders


def _read_mode(item: os.DirEntry[str]) -> int:
    """The kind of file that an entry is or leads to, as `st_mode`; 0 where it leads nowhere."""
    try:
        if not item.is_symlink():
            if item.is_dir():
                return stat.S_IFDIR
            if item.is_file():
                return stat.S_IFREG
        return item.stat().st_mode
    except OSError:
        return 0


def identify(folder: Path) -> tuple[int, int]:
    """Which folder this is, by whatever name."""
    try:
        status = folder.stat()
    except OSError as error:
        raise DataError(f"cannot read the folder {show_path(folder)}: {error.strerror or error}") from error
    return status.st_dev, status.st_ino
