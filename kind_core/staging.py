"""Outputs that are there whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kind_core.errors import OutputError


def check_output(path: Path, *, force: bool) -> None:
    """Raise OutputError when `path` exists and may not be replaced; call before long work, not after it."""
    if path.exists() and not force:
        raise OutputError(f"{path} already exists", "choose another --output or replace it with --force")
    parent = _existing_parent(path)
    if not parent.is_dir():
        raise OutputError(f"cannot write {path}: {parent} is not a folder", "choose another --output")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"cannot write {path}: no permission in {parent}", "choose another --output")


@contextmanager
def staged(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the body succeeds it takes that place, otherwise it is removed.

    The body creates a file or a folder there. Raises OutputError when the place is taken, unwritable or the disk full.
    """
    check_output(path, force=force)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    except OSError as error:
        raise _output_error(path, error) from error
    try:
        yield holder / path.name
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
        match = re.fullmatch(r"\.(.+)\.[a-z0-9_]{8}\.partial", holder.name)
        if match is None:
            continue
        path, new, old = folder / match[1], holder / match[1], holder / "replaced"
        if os.path.lexists(old) and not os.path.lexists(path):
            (new if os.path.lexists(new) else old).rename(path)  # the old one is moved only when the new one is whole
        shutil.rmtree(holder, ignore_errors=True)


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
