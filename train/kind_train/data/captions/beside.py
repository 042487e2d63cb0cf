"""Captions of photos in a folder: `NAME.txt` beside `NAME.jpg`, or rows of `metadata.jsonl` or `metadata.csv`.

The first is how trainers of diffusion models lay captions out, the second how `datasets` reads a folder of images: a
row has the `file_name` of a photo, as a path from the folder that the table lies in, and its caption.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kind_core.errors import DataError
from kind_core.files.regular_files import read_text

# What a column or a field of captions is called, in data sets of the Hub and in what trains on them.
CAPTION_NAMES = ("caption", "text", "captions")
_FILE_NAME = "file_name"
_TABLES = ("metadata.jsonl", "metadata.csv")
_MOST_CHARACTERS = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """The row of a table: its caption, the photo that it names, its file and, for errors, its line."""

    photo: Path
    caption: str
    file: Path
    place: str


class CaptionFinder:
    """The captions of photos below `root`; `used` are the files that some were read from."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.used: set[Path] = set()
        self._tables: dict[Path, Mapping[Path, _Row]] = {}
        self._asked: set[Path] = set()

    def find(self, photo: Path) -> str | None:
        """The caption of a photo, None where it has none; raises DataError where it has two, or a file is damaged."""
        found: dict[str, str] = {}
        self._asked.add(photo)
        beside = photo.with_suffix(".txt")
        if beside.is_file():
            found[str(beside)] = clean_caption(read_words(beside), str(beside))
            self.used.add(beside)
        for folder in self._above(photo):
            if (row := self._read_tables(folder).get(photo)) is not None:
                found[row.place] = row.caption
        if len(set(found.values())) > 1:
            raise _two_captions(photo, found)
        return next(iter(found.values()), None) or None

    def find_unasked(self) -> Iterator[tuple[Path, str]]:
        """What rows of the tables name and `find` was not asked for, and what is to be said of it."""
        for rows in self._tables.values():
            for photo, row in rows.items():
                if photo not in self._asked:
                    what = "it is no photo that is read" if os.path.exists(photo) else "there is no such photo"
                    yield photo, f"{row.file} has a caption for it, but {what}"

    def _above(self, photo: Path) -> Iterator[Path]:
        """The folders of a photo, from its own up to the root."""
        for folder in photo.parents:
            yield folder
            if folder == self.root:
                return

    def _read_tables(self, folder: Path) -> Mapping[Path, _Row]:
        if folder not in self._tables:
            files = [folder / name for name in _TABLES if (folder / name).is_file()]
            self.used.update(files)
            rows: dict[Path, _Row] = {}
            for row in (row for file in files for row in _read_table(file)):
                other = rows.setdefault(row.photo, row)
                if other.caption != row.caption:
                    raise _two_captions(row.photo, (other.place, row.place))
            self._tables[folder] = rows
        return self._tables[folder]


def _two_captions(photo: Path, places: Iterable[str]) -> DataError:
    return DataError(f"{photo} has two captions, in {' and '.join(places)}", "leave one of the two")


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


def _read_table(file: Path) -> Iterator[_Row]:
    """The photos that a table names, and their captions."""
    rows = _read_json_lines(file) if file.suffix == ".jsonl" else _read_rows(file)
    for number, row in rows:
        place = f"{file} line {number}"
        name = row.get(_FILE_NAME)
        if not isinstance(name, str):
            raise DataError(f"{place} has {_FILE_NAME} {name!r:.60}, expected the name of a photo")
        caption = clean_caption(row[choose_column(row, place)], place)
        yield _Row(photo=file.parent / name, caption=caption, file=file, place=place)


def _read_json_lines(file: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(read_words(file).split("\n"), 1):
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
    reader = csv.DictReader(read_words(file).split("\n"), strict=True)
    try:
        for row in reader:
            yield reader.line_num, {str(name): value for name, value in row.items()}
    except csv.Error as error:
        raise DataError(f"{file} line {reader.line_num} is not CSV: {error}", "write it again") from error


def read_words(file: Path) -> str:
    """The text of a file of the data; raises DataError where it is none."""
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
