"""Captions of photos in a folder: `NAME.txt` beside `NAME.jpg`, or rows of `metadata.jsonl` or `metadata.csv`.

The first is how trainers of diffusion models lay captions out, the second how `datasets` reads a folder of images: a
row has the `file_name` of a photo, as a path from the folder that the table lies in, and its caption.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from kind_core.errors import DataError
from kind_core.files.regular_files import read_text

# What a column or a field of captions is called, in data sets of the Hub and in what trains on them.
CAPTION_NAMES = ("caption", "text", "captions")
_FILE_NAME = "file_name"
_TABLES = ("metadata.jsonl", "metadata.csv")
_MOST_CHARACTERS = 10_000


class CaptionFinder:
    """The captions of photos below `root`; `used` are the files that some were read from."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.used: set[Path] = set()
        self._tables: dict[Path, Mapping[Path, str]] = {}

    def find(self, photo: Path) -> str | None:
        """The caption of a photo, None where it has none; raises DataError where it has two, or a file is damaged."""
        found: dict[Path, str] = {}
        beside = photo.with_suffix(".txt")
        if beside.is_file():
            found[beside] = clean_caption(_read(beside), str(beside))
            self.used.add(beside)
        for folder in self._above(photo):
            if (caption := self._read_tables(folder).get(photo)) is not None:
                found[folder] = caption
        if len(set(found.values())) > 1:
            places = " and ".join(str(place) for place in found)
            raise DataError(f"{photo} has two captions, in {places}", "leave one of the two")
        return next(iter(found.values()), None) or None

    def _above(self, photo: Path) -> Iterator[Path]:
        """The folders of a photo, from its own up to the root."""
        for folder in photo.parents:
            yield folder
            if folder == self.root:
                return

    def _read_tables(self, folder: Path) -> Mapping[Path, str]:
        if folder not in self._tables:
            files = [folder / name for name in _TABLES if (folder / name).is_file()]
            self.used.update(files)
            self._tables[folder] = {photo: text for file in files for photo, text in _read_table(file)}
        return self._tables[folder]


def clean_caption(text: object, place: str) -> str:
    """A caption in one line; raises DataError where it is no text, or a book."""
    if not isinstance(text, str):
        raise DataError(f"{place} has caption {text!r:.60}, expected a text", "write one caption a photo")
    caption = " ".join(text.split())
    if len(caption) > _MOST_CHARACTERS:
        raise DataError(
            f"{place} has a caption of {len(caption)} characters, expected {_MOST_CHARACTERS} at most",
            "is it a caption? a text encoder reads the first few hundred words",
        )
    return caption


def choose_column(names: Iterable[str], place: str) -> str:
    """The column of captions among `names`; raises DataError where there is none, or where there are two."""
    held = list(names)
    found = [name for name in CAPTION_NAMES if name in held]
    if len(found) != 1:
        what = f"has columns {' and '.join(found)}" if found else "has no column of captions"
        raise DataError(
            f"{place} {what}, expected one of {', '.join(CAPTION_NAMES)}",
            f"its columns are {', '.join(map(repr, held))}",
        )
    return found[0]


def _read_table(file: Path) -> Iterator[tuple[Path, str]]:
    """The photos that a table names, and their captions."""
    rows = _read_json_lines(file) if file.suffix == ".jsonl" else _read_rows(file)
    for number, row in rows:
        place = f"{file} line {number}"
        name = row.get(_FILE_NAME)
        if not isinstance(name, str):
            raise DataError(f"{place} has {_FILE_NAME} {name!r:.60}, expected the name of a photo")
        yield file.parent / name, clean_caption(row[choose_column(row, place)], place)


def _read_json_lines(file: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(_read(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file} line {number} is not JSON: {error}", "write one object a line") from error
        if not isinstance(row, dict):
            raise DataError(f"{file} line {number} holds a {type(row).__name__}, expected an object")
        yield number, row


def _read_rows(file: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    reader = csv.DictReader(_read(file).split("\n"), strict=True)
    try:
        for row in reader:
            yield reader.line_num, {str(name): value for name, value in row.items()}
    except csv.Error as error:
        raise DataError(f"{file} line {reader.line_num} is not CSV: {error}", "write it again") from error


def _read(file: Path) -> str:
    try:
        return read_text(file)
    except ValueError as error:
        raise DataError(f"{file} is no text: {error}", "save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from error


def require_captions(captions: Sequence[str | None], names: Sequence[str], path: str) -> None:
    """Raise DataError where some of the photos called `names` have no caption, or none has."""
    missing = [name for name, caption in zip(names, captions, strict=True) if not caption]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(names)} photos of {path} have no caption, such as {missing[0]}",
            "write it into a .txt beside the photo, into metadata.jsonl, or into a column caption of Parquet",
        )
