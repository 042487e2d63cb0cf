"""What was seen and measured, in files that are there whole or not at all, from where a killed command goes on."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from kind_core.errors import ResultsError
from kind_core.files.staging import PART, staged
from kind_train.evaluate.networks import Observed

# Asked for what is called so, and how it is seen where nothing is kept of it.
Recall = Callable[[str, Callable[[], list[Observed]]], list[Observed]]
SEEN_SUFFIX = ".npz"
_MAX_SHOWN = 120  # letters of a value in an error


def recall_nothing(name: str, see: Callable[[], list[Observed]]) -> list[Observed]:
    """See it: nothing is kept."""
    return see()


def write_arrays(file: Path, figures: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> None:
    """Write figures and arrays as one file, whole or not there."""
    with staged(file, PART, force=True) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, figures=json.dumps(figures), **cast(Any, arrays))


@contextmanager
def opened_arrays(file: Path) -> Iterator[tuple[Any, Mapping[str, np.ndarray]]]:
    """Figures and arrays, which are read when they are asked for; raises ResultsError where the file is damaged."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            yield json.loads(str(stored["figures"])), stored
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise ResultsError(f"{file} is damaged: {reason}", "remove it and make it again with --resume") from error


@dataclass(frozen=True, slots=True)
class SeenFiles:
    """What networks saw in some pictures, such as those of a class, a file each in `folder`; a `Recall`."""

    folder: Path

    def __call__(self, name: str, see: Callable[[], list[Observed]]) -> list[Observed]:
        """What lies there of `name`, else what `see` returns, which is kept."""
        file = self.folder / f"{name}{SEEN_SUFFIX}"
        if not file.exists():
            seen = see()
            self.folder.mkdir(parents=True, exist_ok=True)
            arrays = {f"{number}/{key}": rows for number, one in enumerate(seen) for key, rows in one.items()}
            write_arrays(file, {"networks": len(seen)}, arrays)
            return seen
        with opened_arrays(file) as (figures, stored):
            return [
                {key.partition("/")[2]: stored[key] for key in stored if key.startswith(f"{number}/")}
                for number in range(figures["networks"])
            ]


def find_change(then: Mapping[str, object], now: Mapping[str, object]) -> str | None:
    """The first thing that decides results and is another one now, as `count 4, not 5`; None where all is the same."""
    for name, value in now.items():
        if then.get(name) != value:
            return f"{name} {_brief(then.get(name))}, not {_brief(value)}"
    return None


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."
