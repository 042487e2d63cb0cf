"""Where photos come from: image folders, Parquet files, WebDataset shards, data sets of the Hub.

A source knows the label of every photo before it reads one; photos are read one after the other, each in its turn, so a
source may be larger than memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from kind_core.classes import ClassInfo
from kind_core.errors import DataError
from kind_core.files.litter import is_hidden
from kind_train.data.decoding import is_photo_name
from kind_train.data.image_folder import open_folder, peek_folder
from kind_train.data.parquet_source import open_parquet
from kind_train.data.photo_files import LeftOut, describe_output, list_folder
from kind_train.data.photo_source import (
    Chosen,
    Entry,
    Source,
    check_label,
    is_split_name,
    is_train_name,
    make_classes,
    refuse_splits,
)
from kind_train.data.shard_source import open_shards
from kind_train.places import HUB_PREFIX, find_paths, no_data, no_datasets

# How files that hold many photos are read, by their suffix.
_READERS: dict[str, Callable[[str, Sequence[Path]], Source]] = {
    ".parquet": open_parquet,
    ".tar": open_shards,
    ".tar.gz": open_shards,
    ".tgz": open_shards,
}
_ARCHIVES = (".zip", ".rar", ".7z", ".gz", ".bz2", ".xz")
# `train-00000-of-00003`, as the Hub calls the files of a split
_PART = re.compile(r"(?P<split>[^/]+?)(-(?P<number>\d{1,9})-of-(?P<total>\d{1,9})(-[0-9a-f]+)?)?", re.ASCII)


def open_source(path: str | Path, output: Path | None = None, *, with_captions: bool = False) -> Source:
    """The photos at `path`: a folder with one folder a class, Parquet files, WebDataset shards, or `hub:ORG/NAME` or
    `hub:ORG/NAME:SPLIT`, read with the `datasets` library.

    Parquet files and shards (.tar) are one file, a pattern (`*`, `{000..003}`), or a folder of them. Parquet has
    columns `image` (encoded bytes, or a struct with `bytes`) and `label`, with the class names in the schema as
    `datasets` writes them. A sample of a shard is an image and `.cls`, a number; the names of the classes are the lines
    of `classes.txt` beside the shards. `output`, where the command writes, is left out of a folder.
    `with_captions`: the source knows the caption of every photo too, which folders and Parquet files hold.
    """
    text = str(path)
    if text.startswith(HUB_PREFIX):
        return _open_hub(text, with_captions=with_captions)
    place = Path(text)
    if text and place.is_dir():
        files = _list_files(place)
        if not files:
            return open_folder(place, output, with_captions=with_captions)
        return _with_rest(_open_files(text, files, with_captions=with_captions), place, files)
    if text and place.exists():
        check_file(place)
        return _open_files(text, [place], with_captions=with_captions)
    files = [file for file in find_paths(text) if _is_wanted(file)]
    if not files:
        raise no_data(text)
    return _with_missing(_open_files(text, files, with_captions=with_captions), files)


def choose_photos(
    path: str | Path,
    classes: Sequence[str] | Sequence[ClassInfo],
    tell: Callable[[str], None],
    output: Path | None = None,
    *,
    with_captions: bool = False,
) -> Chosen:
    """The photos of some classes, in that order: see `Source.choose`; `tell` gets the notes of the source.

    Raises DataError where one of them has no photo at all.
    """
    source = open_source(path, output, with_captions=with_captions)
    chosen, held = Chosen(source=source, kept=source.choose(classes)), set(source.labels)
    chosen.require_classes(position for position, label in enumerate(chosen.kept) if label in held)
    for line in source.notes:
        tell(line)
    return chosen


def _suffix(file: Path) -> str | None:
    """The suffix of a file that holds many photos; None for any other."""
    return next((suffix for suffix in _READERS if file.name.lower().endswith(suffix)), None)


def _is_wanted(file: Path) -> bool:
    return _suffix(file) is not None and not is_hidden(file.name) and file.is_file()


def _list_files(folder: Path) -> list[Path]:
    """The Parquet files or shards in a folder, or in the only folder in it: a data set cloned from the Hub."""
    for place in (folder, *_only_folder(folder)):
        files = [place / item.name for item in list_folder(place) if _is_wanted(place / item.name)]
        if files:
            _refuse_parts(place, files)
            return files
    return []


def _with_rest(source: Source, place: Path, files: Sequence[Path]) -> Source:
    """The source of `files` in `place`, which names the photos and folders that lie there and are not read."""
    rest = LeftOut()
    for folder in dict.fromkeys((place, files[0].parent)):
        for item in list_folder(folder):
            is_read = folder / item.name == files[0].parent
            if not is_read and (item.is_dir() or is_photo_name(item.name)):
                rest.add(folder / item.name, f"it lies beside {files[0].name}; give --data one or the other")
    return _with_missing(replace(source, notes=(*source.notes, *rest.lines(str(place)))), files)


def _with_missing(source: Source, files: Sequence[Path]) -> Source:
    """The source of `files`, which tells which of the parts that their names count are not there."""
    held: dict[tuple[str, int], set[int]] = {}
    for file in files:
        if (part := _match_part(file)) is not None and part["total"] is not None:
            held.setdefault((str(file.with_name(part["split"])), int(part["total"])), set()).add(int(part["number"]))
    notes = []
    for (split, total), numbers in held.items():
        missing = next((number for number in range(total) if number not in numbers), None)
        if missing is not None:
            count = total - sum(number < total for number in numbers)
            notes.append(f"{count} of the {total} parts of {split} are not there, such as number {missing}")
    return replace(source, notes=(*source.notes, *notes))


def _match_part(file: Path) -> re.Match[str] | None:
    return _PART.fullmatch(file.name.removesuffix(_suffix(file) or ""))


def _only_folder(folder: Path) -> list[Path]:
    if describe_output({item.name for item in list_folder(folder)}) is not None:
        return []
    inner = [folder / item.name for item in list_folder(folder) if (folder / item.name).is_dir()]
    return inner if len(inner) == 1 else []


def _refuse_parts(folder: Path, files: Sequence[Path]) -> None:
    """Raise DataError where some of the files are for training and others are held out."""
    parts: dict[str, str] = {}
    for file in files:
        match = _match_part(file)
        if match is not None and is_split_name(match["split"]):
            parts[match["split"]] = str(folder / f"{match['split']}*{_suffix(file)}")
    if len(parts) > 1 and any(map(is_train_name, parts)):
        raise refuse_splits(str(folder), parts)


def _open_files(path: str, files: Sequence[Path], *, with_captions: bool) -> Source:
    readers = {_READERS[_suffix(file) or ".parquet"] for file in files}
    if len(readers) > 1:
        raise DataError(f"{path} holds Parquet files and shards", "give one of the two: a pattern such as '*.parquet'")
    read = readers.pop()
    if not with_captions:
        return read(path, files)
    if read is not open_parquet:
        raise _refuse_captions(path)
    return open_parquet(path, files, with_captions=True)


def check_file(file: Path) -> None:
    """Raise DataError for a file that is none of those with many photos."""
    if not file.is_file():
        raise DataError(f"{file} is no regular file", "give --data an image folder or a .parquet file")
    if _suffix(file) is not None:
        return
    if file.name.lower().endswith(_ARCHIVES):
        raise DataError(f"{file} is an archive", "unpack it and give --data the folder")
    if is_photo_name(file.name):
        raise DataError(f"{file} is one photo", "give --data a folder with one folder a class")
    with file.open("rb") as stream:
        if stream.read(4) != b"PAR1":
            message = f"{file} is neither a folder of photos nor a .parquet or .tar file"
            raise DataError(message, "give --data an image folder or a .parquet file")


def peek_classes(folder: Path) -> tuple[ClassInfo, ...] | None:
    """The classes of an image folder by the names of its folders alone, whose photos are not looked for.

    None where the names are not all there is to it: of files, and of folders for training and for holding out. Raises
    DataError for a folder without class folders.
    """
    return None if _list_files(folder) else peek_folder(folder)


def _refuse_captions(path: str) -> DataError:
    hint = "give --data a folder with a .txt beside each photo, or Parquet with a column `caption`"
    return DataError(f"captions of {path} are not read", hint)


def _open_hub(path: str, *, with_captions: bool) -> Source:
    if with_captions:
        raise _refuse_captions(path)
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise no_datasets(path) from error
    name, _, split = path.removeprefix(HUB_PREFIX).partition(":")
    try:
        rows = datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # it raises errors of many libraries: no network, no such name, no such split
        raise DataError(
            f"cannot load {path}: {' '.join(str(error).split())}", "check the name and the split"
        ) from error
    for column, kind in (("image", datasets.Image), ("label", datasets.ClassLabel)):
        if not isinstance(rows.features.get(column), kind):
            held = ", ".join(f"{key} ({type(value).__name__})" for key, value in rows.features.items())
            raise DataError(f"{path} has no column {column!r} of type {kind.__name__}", f"its columns are {held}")
    encoded = rows.cast_column("image", datasets.Image(decode=False))

    def entries() -> Iterator[Entry]:
        for row, item in enumerate(encoded):
            image = item["image"] or {}
            source = image.get("bytes") or (Path(image["path"]) if image.get("path") else b"")
            yield Entry(name=f"{name} row {row}", label=item["label"], source=source)

    names = rows.features["label"].names
    labels = [check_label(label, len(names), f"{name} row {row}") for row, label in enumerate(rows["label"])]
    return Source(path=path, classes=make_classes(path, names), labels=labels, entries=entries)
