"""Photos in folders, one folder a class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kind_core.classes import ClassInfo
from kind_core.errors import DataError
from kind_core.files.litter import is_bare
from kind_train.data.captions.beside import CaptionFinder
from kind_train.data.photo_files import LeftOut, PhotoFinder, identify, list_folder, show_path, sort_items
from kind_train.data.photo_source import Entry, Source, is_split_name, is_train_name, make_classes, refuse_splits
from kind_train.places import no_classes


@dataclass(frozen=True, slots=True)
class _ClassFolder:
    photos: list[Path]
    left_out: LeftOut

    @property
    def holds_data(self) -> bool:
        return bool(self.photos) or ".parquet" in self.left_out.suffixes


def open_folder(path: Path, output: Path | None = None, *, with_captions: bool = False) -> Source:
    """The photos below the class folders of `path`; what else lies there is told in the notes.

    `output`, which the command writes, is left out. `with_captions`: what lies beside the photos says what they show.
    """
    beside = LeftOut()
    finder = PhotoFinder(path, output)
    folders = {}
    for folder in _list_classes(path, finder, beside):
        left_out = LeftOut()
        photos = finder.find(folder, left_out)
        if photos is None:
            beside.merge(left_out)
        else:
            folders[folder] = _ClassFolder(photos, left_out)
    if not folders:
        raise _no_classes(path, beside)
    _refuse_parts(path, folders)
    _refuse_aliases(folders)
    everything = LeftOut()
    for one in folders.values():
        everything.merge(one.left_out)
    everything.merge(beside)
    captions = _find_captions(path, folders, everything) if with_captions else []
    entries = [
        Entry(name=show_path(file), label=label, source=file)
        for label, one in enumerate(folders.values())
        for file in one.photos
    ]
    return Source(
        path=str(path),
        classes=make_classes(str(path), [folder.name for folder in folders]),
        labels=[entry.label for entry in entries],
        entries=lambda: iter(entries),
        captions=captions,
        notes=(*everything.lines(str(path)), *_note_wrapper(folders)),
        absent={label: _describe_absence(one) for label, one in enumerate(folders.values()) if not one.photos},
    )


def _find_captions(path: Path, folders: Mapping[Path, _ClassFolder], left_out: LeftOut) -> list[str | None]:
    """The caption of each photo; the files that they are read from are not left out, rows of no photo are."""
    finder = CaptionFinder(path)
    captions = [finder.find(photo) for one in folders.values() for photo in one.photos]
    left_out.take_back(finder.used)
    for photo, reason in finder.find_unasked():
        left_out.add(photo, reason)
    return captions


def peek_folder(path: Path) -> tuple[ClassInfo, ...] | None:
    """The classes of `path` by the names of its folders; None where one of them may be a part of the data, no class."""
    beside = LeftOut()
    folders = _list_classes(path, PhotoFinder(path, None), beside)
    if not folders:
        raise _no_classes(path, beside)
    if all(is_bare(folder) for folder in folders):
        message = f"{path} holds no photo: its class folders are empty"
        raise DataError(message, "put the images of each class into its folder")
    names = [folder.name for folder in folders]
    return None if any(map(is_split_name, names)) else make_classes(str(path), names)


def _list_classes(path: Path, finder: PhotoFinder, beside: LeftOut) -> list[Path]:
    items = list_folder(path)
    own = finder.describe_own(path, {item.name for item in items})
    if own is not None:
        raise DataError(f"{path} holds no photos: {own}", "give --data a folder with one folder a class")
    reason = "it lies beside the class folders; a photo belongs into the one of its class"
    return sort_items(path, items, lambda photo: beside.add(photo, reason), beside)


def _no_classes(path: Path, beside: LeftOut) -> DataError:
    held = f": {'; '.join(beside.lines(str(path)))}" if beside.lines(str(path)) else ""
    return no_classes(str(path), held)


def _refuse_parts(path: Path, folders: Mapping[Path, _ClassFolder]) -> None:
    """Raise DataError where the folders are train, val, test ... and not classes."""
    full = {folder: one for folder, one in folders.items() if one.holds_data}
    parts = [folder for folder in full if is_split_name(folder.name)]
    if not any(is_train_name(folder.name) for folder in parts):
        return
    is_alone = parts == list(full) and all(photo.parent != parts[0] for photo in full[parts[0]].photos)
    if len(parts) > 1 or is_alone:
        raise refuse_splits(str(path), {folder.name: str(folder) for folder in parts})


def _refuse_aliases(folders: Iterable[Path]) -> None:
    """Raise DataError where a link makes one folder two classes."""
    seen: dict[tuple[int, int], Path] = {}
    for folder in folders:
        other = seen.setdefault(identify(folder), folder)
        if other != folder:
            message = f"{show_path(other)} and {show_path(folder)} are one folder, which cannot be of two classes"
            raise DataError(message, "remove the link of one of the two")


def _note_wrapper(folders: Mapping[Path, _ClassFolder]) -> tuple[str, ...]:
    """A line where one folder holds all classes, as an archive unpacked into a folder of its own name leaves it."""
    full = [(folder, one) for folder, one in folders.items() if one.photos]
    if len(full) != 1:
        return ()
    folder, one = full[0]
    inner = sorted({photo.relative_to(folder).parts[0] for photo in one.photos if photo.parent != folder})
    if len(inner) < 2 or any(photo.parent == folder for photo in one.photos):
        return ()
    names = ", ".join(inner[:3]) + (", ..." if len(inner) > 3 else "")
    return (
        f"all photos are of one class, {folder.name!r}, in folders of it: {names}; if those are the classes, "
        f"give --data {folder}",
    )


def _describe_absence(one: _ClassFolder) -> str:
    held = one.left_out.describe_suffixes()
    if ".parquet" in one.left_out.suffixes:
        return f"it holds {held}; give --data that folder"
    if not held:
        return "it holds no file"
    return f"it holds {held}, of no format that is read" + (f"; {one.left_out.hint}" if one.left_out.hint else "")
