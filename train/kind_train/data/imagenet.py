"""The classes of ImageNet-1K (ILSVRC-2012), and how the paper trains on it: 611 merged classes, 150 to pre-train, 461
novel ones in 18 tasks.

The facts are in `imagenet_split.json` (appendix A.3). 465 of the 1000 classes fall into 76 superclasses.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from kind_core.errors import ConfigError, DataError
from kind_core.files.litter import is_hidden
from kind_core.files.staging import OutputKind, check_output, find_foreign, staged
from kind_train.data.decoding import is_photo_name

PRETRAIN = "pretrain"


@cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """The (WordNet id, name) of ILSVRC-2012's 1000 classes; the position is the classifier's output index."""
    text = (files("kind_core") / "data" / "imagenet_1k.json").read_text(encoding="utf-8")
    return tuple((wnid, name) for wnid, name in json.loads(text))


def imagenet_index(wnid: str) -> int | None:
    """The classifier's output index for a WordNet id, None for a class that is not in ImageNet-1K."""
    return next((index for index, (known, _) in enumerate(imagenet_classes()) if known == wnid), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class MergedClass:
    """A class of the paper: its WordNet id, and the ImageNet classes that it is made of (itself, where not merged)."""

    id: str
    members: tuple[str, ...]

    @property
    def folder_name(self) -> str:
        """`<id>_<name>`, from which data sets take both; a superclass is called after its members."""
        first = dict(imagenet_classes())[self.members[0]]
        others = f" and {len(self.members) - 1} more" if len(self.members) > 1 else ""
        return f"{self.id}_{first}{others}".replace(" ", "_").replace("/", "-")


@cache
def read_split() -> dict[str, tuple[MergedClass, ...]]:
    """The classes of `pretrain` and of `task-01` to `task-18`."""
    data = json.loads((files("kind_train.data") / "imagenet_split.json").read_text(encoding="utf-8"))
    merged = data["superclasses"]
    parts = {PRETRAIN: data["pretrain_classes"]}
    parts |= {f"task-{int(number):02d}": ids for number, ids in data["novel_tasks"].items()}
    return {
        part: tuple(MergedClass(id=one, members=tuple(merged.get(one, [one]))) for one in ids)
        for part, ids in parts.items()
    }


def _find_misfit(path: Path) -> str | None:
    """A split holds links alone: whoever replaces it loses no photo."""
    if not path.is_dir() or not any(part in read_split() for part in os.listdir(path)):
        return f"it has no folder {PRETRAIN} or task-01"
    foreign = find_foreign(path, lambda name: name.partition("/")[0] in read_split() and (path / name).is_symlink())
    return None if foreign is None else f"it also holds {foreign}"


SPLIT = OutputKind("an ImageNet split", _find_misfit)


def split_imagenet(
    imagenet: Path,
    output: Path,
    parts: Sequence[str] = (),
    *,
    force: bool = False,
    on_progress: Callable[[int, int, str], None] = lambda done, total, status: None,
) -> dict[str, int]:
    """Write `output`/<part>/<class>/ with a link to every photo of the class; returns the photos of each part.

    `imagenet` has a folder of each WordNet id, as train/ of ILSVRC-2012. Raises DataError where one is not there.
    """
    split = read_split()
    unknown = next((part for part in parts if part not in split), None)
    if unknown is not None:
        raise ConfigError(f"unknown part {unknown!r}, expected one of {', '.join(split)}")
    check_output(output, SPLIT, force=force)
    chosen = {part: split[part] for part in parts or split}
    wanted = [member for classes in chosen.values() for one in classes for member in one.members]
    for member in wanted:
        if not (imagenet / member).is_dir():
            raise DataError(
                f"{imagenet} has no folder {member}, expected one of each of {len(wanted)} classes",
                "give the folder train/ of ILSVRC-2012, unpacked class by class",
            )
    counts, done = {}, 0
    with staged(output, SPLIT, force=force) as folder:
        for part, classes in chosen.items():
            counts[part] = 0
            for one in classes:
                counts[part] += _link_photos(imagenet, one, folder / part / one.folder_name)
                done += 1
                on_progress(done, sum(map(len, chosen.values())), part)
    return counts


def _link_photos(imagenet: Path, one: MergedClass, folder: Path) -> int:
    folder.mkdir(parents=True)
    count = 0
    for member in one.members:
        for file in sorted((imagenet / member).iterdir()):
            if is_photo_name(file.name) and not is_hidden(file.name):
                os.symlink(file.resolve(), folder / file.name)
                count += 1
    if count == 0:
        raise DataError(f"the folders of class {one.id} in {imagenet} hold no image", "unpack ILSVRC-2012 again")
    return count
