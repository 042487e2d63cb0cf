"""A cell of a suite as it lies on the disk: its figures, and arrays of what was drawn and seen."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kind_core.errors import ResultsError
from kind_core.files.staging import PART, staged


def write_cell(file: Path, figures: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Write one file, whole or not there."""
    with staged(file, PART, force=True) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, figures=json.dumps(figures), **arrays)


@contextmanager
def opened_cell(file: Path) -> Iterator[tuple[dict[str, Any], Mapping[str, np.ndarray]]]:
    """Figures and arrays, which are read when they are asked for; raises ResultsError where the file is damaged."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            yield json.loads(str(stored["figures"])), stored
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise ResultsError(f"{file} is damaged: {reason}", "remove it and make it again with --resume") from error
