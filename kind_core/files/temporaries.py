"""Where what libraries write for a moment goes: beside the output that is being made, so that it goes with it.

In the system's own folder of temporaries a killed process leaves them for good.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAMES = ("temporary", "temporary-")  # the second beside an output of the first name


@contextmanager
def temporaries_beside(draft: Path) -> Iterator[None]:
    """Have this process and those that it starts put their temporaries beside what `staged` yields, for the body."""
    place = draft.with_name(next(name for name in NAMES if name != draft.name))
    before = tempfile.tempdir, os.environ.get("TMPDIR")
    place.mkdir()
    tempfile.tempdir = os.environ["TMPDIR"] = str(place.absolute())
    try:
        yield
    finally:
        tempfile.tempdir = before[0]
        if before[1] is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before[1]
