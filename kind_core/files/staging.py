"""Outputs that are there whole or not at all: written beside their place, then renamed.

Every output says what kind of thing it is. What stands at its place is replaced only by force, and only where it is of
that kind itself: a folder of photos is no bundle, whatever the command line says.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kind_core.errors import KindError, OutputError
from kind_core.files.holders import REPLACED, holder_of, is_holder
from kind_core.files.holders import recover as recover
from kind_core.files.holders import temporaries_beside as temporaries_beside
from kind_core.files.litter import is_bare, is_litter
from kind_core.files.locking import LOCK_SUFFIX, MAX_NAME, check_unlocked, locked
from kind_core.files.publishing import publish, sync


@dataclass(frozen=True, slots=True)
class OutputKind:
    """What an output is, in words with their article, and how one that exists is known.

    `find_misfit` says why a path is none, in words that follow its name, or None where it is one and holds nothing
    else. `heart`: of a folder, the file that is claimed by whoever writes into it, see `claimed`.
    """

    name: str
    find_misfit: Callable[[Path], str | None]
    heart: str | None = None


def check_output(path: Path, kind: OutputKind, *, force: bool) -> None:
    """Raise OutputError when `path` exists and may not be replaced; call before long work, not after it.

    What killed processes left beside it is removed.
    """
    if path.name in ("", ".."):
        raise OutputError(f"cannot write {path}: it names a folder that is there", "choose another --output")
    size = len(os.fsencode(path.name))
    if size > MAX_NAME:
        raise OutputError(f"cannot write {path}: its name has {size} bytes, expected {MAX_NAME} at most", "shorten it")
    check_unclaimed(path, kind)
    recover(path.absolute().parent)
    if os.path.lexists(path):
        _check_replaced(path, kind, force=force)
    parent = _existing_parent(path)
    if not parent.is_dir():
        raise OutputError(f"cannot write {path}: {parent} is not a folder", "choose another --output")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"cannot write {path}: no permission in {parent}", "choose another --output")


def check_free(path: Path, *, force: bool) -> None:
    """Raise OutputError where something is at `path` and there is no `force`, whatever kind of output is to come."""
    if not force and os.path.lexists(path):
        raise OutputError(f"{path} already exists", "choose another --output or replace it with --force")


@contextmanager
def staged(path: Path, kind: OutputKind, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the body succeeds it takes that place, otherwise it is removed.

    The body creates a file or a folder there. What `force` replaces must be of the same `kind`. Raises OutputError when
    the place is taken, unwritable or the disk full.
    """
    check_output(path, kind, force=force)
    try:
        made = _make_parents(path)
        with locked(path), holder_of(path) as holder:
            yield holder / path.name
            check_output(path, kind, force=force)  # once more: the body took its time
            publish(holder / path.name, path, holder / REPLACED)
            for folder in made:
                sync(folder.parent)
    except OSError as error:
        raise _output_error(path, error) from error


@contextmanager
def claimed(folder: Path, kind: OutputKind) -> Iterator[None]:
    """Be the only one that writes into a folder, there or to come, for as long as a command takes; raises OutputError.

    Where nothing may be written beside the folder, its heart is locked in its place. What killed processes left in it
    and beside it is removed.
    """
    place = Path(os.path.realpath(folder))
    with ExitStack() as stack:
        try:
            stack.callback(_remove_bare, _make_parents(place))
            stack.enter_context(locked(place if os.access(place.parent, os.W_OK) else _heart_of(place, kind)))
            recover(place.parent)
            recover(place)
        except OSError as error:
            raise _output_error(folder, error) from error
        yield


def check_unclaimed(path: Path, kind: OutputKind) -> None:
    """Raise OutputError where another process writes to `path` now, or into it, or where no file can be called so."""
    if "\0" in str(path):
        raise OutputError(f"cannot write {path}: its name holds NUL", "choose another --output")
    place = Path(os.path.realpath(path))
    for one in dict.fromkeys((path.absolute(), place)):
        check_unlocked(one)
    if kind.heart is not None:
        check_unlocked(_heart_of(place, kind))


def _heart_of(folder: Path, kind: OutputKind) -> Path:
    assert kind.heart is not None
    return folder / kind.heart


def _make_parents(path: Path) -> list[Path]:
    """Make the folders above `path`; returns those that were not there."""
    made = [folder for folder in path.absolute().parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    return made


def _remove_bare(folders: list[Path]) -> None:
    """Remove those of a chain of folders, the innermost first, that nothing was written into."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


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
        folders[:] = sorted(name for name in folders if not is_holder(name))
        for name in sorted([*files, *links]):
            relative = (here / name).relative_to(folder).as_posix()
            is_lock = name.startswith(".") and name.endswith(LOCK_SUFFIX)
            if not (is_own(relative) or is_litter(name) or is_lock):
                return relative
    return None


def folder_kind(
    name: str, check: Callable[[Path], object] | None, is_own: Callable[[str], bool], heart: str | None = None
) -> OutputKind:
    """A folder: `check` raises a KindError where it is none, `is_own` tells its files from others.

    Without a check its `heart` alone has to be there, which a damaged one has too, so that --force replaces it.
    """

    def find_misfit(path: Path) -> str | None:
        if not path.is_dir():
            return "it is a file"
        try:
            if check is not None:
                check(path)
            elif heart is not None and not (path / heart).exists():
                return f"it has no {heart}"
            foreign = find_foreign(path, is_own)
        except KindError as error:
            return error.message
        return None if foreign is None else f"it also holds {foreign}"

    return OutputKind(name, find_misfit, heart)


def write_whole(file: Path, text: str) -> None:
    """Write a file of text in the place of one that may be there: whole, or as it was."""
    with staged(file, PART, force=True) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
    check_free(path, force=force)
    if path.is_dir() and not path.is_symlink() and is_bare(path):
        return  # nothing is lost
    misfit = kind.find_misfit(path)
    if misfit is not None:
        raise OutputError(
            f"{path} is not {kind.name}, so it is kept: {misfit}",
            f"choose another --output; --force replaces only {kind.name}",
        )


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
