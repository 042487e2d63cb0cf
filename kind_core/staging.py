"""Outputs that are there whole or not at all: written beside their place, then renamed.

Every output says what kind of thing it is. What stands at its place is replaced only by force, and only where it is of
that kind itself: a folder of photos is no bundle, whatever the command line says.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kind_core.errors import KindError, OutputError

# What a file manager or a version control system leaves in any folder: nobody's work.
_LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini", ".localized"})
_APPLE_DOUBLE = "._"
_HOLDER = re.compile(r"\.(.+)\.[a-z0-9_]{8}\.partial")


@dataclass(frozen=True, slots=True)
class OutputKind:
    """What an output is, in words with their article, and how one that exists is known.

    `find_misfit` says why a path is none, in words that follow its name, or None where it is
    one and holds nothing else.
    """

    name: str
    find_misfit: Callable[[Path], str | None]


def check_output(path: Path, kind: OutputKind, *, force: bool) -> None:
    """Raise OutputError when `path` exists and may not be replaced; call before long work, not after it."""
    if path.name in ("", ".."):
        raise OutputError(f"cannot write {path}: it names a folder that is there", "choose another --output")
    if os.path.lexists(path):
        _check_replaced(path, kind, force=force)
    parent = _existing_parent(path)
    if not parent.is_dir():
        raise OutputError(f"cannot write {path}: {parent} is not a folder", "choose another --output")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"cannot write {path}: no permission in {parent}", "choose another --output")


@contextmanager
def staged(path: Path, kind: OutputKind, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the body succeeds it takes that place, otherwise it is removed.

    The body creates a file or a folder there. What `force` replaces must be of the same `kind`. Raises OutputError when
    the place is taken, unwritable or the disk full.
    """
    check_output(path, kind, force=force)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    except OSError as error:
        raise _output_error(path, error) from error
    try:
        yield holder / path.name
        check_output(path, kind, force=force)  # once more: the body took its time
        _replace(holder / path.name, path, holder / "replaced")
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def recover(folder: Path) -> None:
    """Finish or undo what a killed process left of its `staged` outputs in `folder`; nobody else may be writing there.

    Killed between the two renames of `_replace`, an output is missing while the old and the new one wait beside it.
    """
    for holder in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = _HOLDER.fullmatch(holder.name)
        if match is None:
            continue
        path, new, old = folder / match[1], holder / match[1], holder / "replaced"
        if os.path.lexists(old) and not os.path.lexists(path):
            (new if os.path.lexists(new) else old).rename(path)  # the old one is moved only when the new one is whole
        shutil.rmtree(holder, ignore_errors=True)


def find_foreign(folder: Path, is_own: Callable[[str], bool]) -> str | None:
    """The first file below `folder`, as a relative POSIX path, that is not one of its own; links are not followed.

    What a file manager leaves everywhere does not count, nor do temporaries of `staged`. Raises OutputError where a
    folder cannot be looked into.
    """

    def stop(error: OSError) -> None:
        raise OutputError(f"{error.filename} cannot be read: {error.strerror}")

    for place, folders, files in os.walk(folder, onerror=stop):
        here = Path(place)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(name for name in folders if not _HOLDER.fullmatch(name))
        for name in sorted([*files, *links]):
            relative = (here / name).relative_to(folder).as_posix()
            if not (is_own(relative) or name in _LITTER or name.startswith(_APPLE_DOUBLE)):
                return relative
    return None


def folder_kind(name: str, check: Callable[[Path], object], is_own: Callable[[str], bool]) -> OutputKind:
    """A folder: `check` raises a KindError where it is none, `is_own` tells its files from others."""

    def find_misfit(path: Path) -> str | None:
        if not path.is_dir():
            return "it is a file"
        try:
            check(path)
            foreign = find_foreign(path, is_own)
        except KindError as error:
            return error.message
        return None if foreign is None else f"it also holds {foreign}"

    return OutputKind(name, find_misfit)


def file_kind(name: str, check: Callable[[Path], object] = lambda path: None) -> OutputKind:
    """A file: `check` raises a KindError where it is another one."""

    def find_misfit(path: Path) -> str | None:
        if not path.is_file():
            return "it is a folder" if path.is_dir() else "it is no file"
        try:
            check(path)
        except KindError as error:
            return error.message
        return None

    return OutputKind(name, find_misfit)


# A file at a fixed name in a folder that is known to be ours.
PART = file_kind("a file of this program")


def _check_replaced(path: Path, kind: OutputKind, *, force: bool) -> None:
    if not force:
        raise OutputError(f"{path} already exists", "choose another --output or replace it with --force")
    if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
        return  # nothing is lost
    misfit = kind.find_misfit(path)
    if misfit is not None:
        raise OutputError(
            f"{path} is not {kind.name}, so it is kept: {misfit}",
            f"choose another --output; --force replaces only {kind.name}",
        )


def _replace(new: Path, path: Path, old: Path) -> None:
    if os.path.lexists(path) and (path.is_dir() or new.is_dir()):
        # Renaming over works from file to file only: keep the old one until the new one stands.
        path.rename(old)
        try:
            new.rename(path)
        except BaseException:
            old.rename(path)
            raise
        return
    os.replace(new, path)


def _existing_parent(path: Path) -> Path:
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    return parent


def _output_error(path: Path, error: OSError) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"cannot write {path}: the disk is full", "free some space or choose another --output")
    # the file at fault where it is another one than the output: the body may have been reading
    culprit = f": {error.filename}" if error.filename and path.name not in Path(error.filename).parts else ""
    return OutputError(f"cannot write {path}: {error.strerror or error}{culprit}", "choose another --output")


def link_file(source: Path, target: Path) -> None:
    """Put a file in another place too, without a copy where the file system can."""
    try:
        os.link(source.resolve(), target)  # the Hub's cache holds symbolic links, which lead nowhere from elsewhere
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
