"""What native code of an engine writes to the file descriptor of stderr, where Python's redirection does not reach."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

from kind_core.console import join_lines


@contextmanager
def held_stderr(
    expected: re.Pattern[bytes], reason: re.Pattern[bytes], reasons: list[str] | None = None
) -> Iterator[None]:
    """Hold back what is written to stderr in the body, then write it, less the `expected` lines.

    Where the body fails, the group `reason` of the lines that `reason` finds goes to `reasons`, if given, instead: they
    belong into the error.
    """
    saved = os.dup(2)
    failed = True
    with tempfile.TemporaryFile() as log, open(log.fileno(), "w", buffering=1, closefd=False) as text:
        os.dup2(log.fileno(), 2)
        try:
            with redirect_stderr(text):  # some write to sys.stderr, their backends to the file descriptor
                yield
            failed = False
        finally:
            os.dup2(saved, 2)
            log.seek(0)
            written = expected.sub(b"", log.read())
            if failed and reasons is not None:
                reasons += [found["reason"].decode(errors="replace") for found in reason.finditer(written)]
                written = reason.sub(b"", written)
            with open(saved, "wb") as stderr:
                stderr.write(join_lines(written.decode(errors="replace").split("\n")).encode(errors="replace"))


@contextmanager
def dropped_stderr() -> Iterator[None]:
    """Drop what native code writes to stderr in the body, which may be long: what Python writes goes on at once."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    sys.stderr.flush()
    try:
        with open(os.dup(saved), "w", buffering=1) as text, redirect_stderr(text):
            os.dup2(nowhere, 2)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
