"""A cell of a suite as it lies on the disk: its figures, and arrays of what was drawn and seen."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

import numpy as np

from kind_core.errors import ResultsError
from kind_core.files.staging import PART, staged
from kind_train.evaluate.against import FigureEntry
from kind_train.evaluate.networks import Observed

# what is measured of the weights themselves
OfWeights = Literal["tailor_norm", "gradient_share", "component_gradient_share", "tailor_gradient_share"]


class RowFigures(TypedDict):
    """A row of a suite that only draws: which judge saw how many pictures, and what it made of them."""

    method: str
    title: str
    num_images: int
    judge: str
    entropy: FigureEntry
    variance: FigureEntry
    kurtosis: FigureEntry
    called_as_asked: NotRequired[FigureEntry]
    called_as_tailor: NotRequired[FigureEntry]


class PointFigures(TypedDict):
    """A trained checkpoint after `images`; `curve` is (images, held-out loss), `overall` of what was drawn.

    `processor_seconds` is not there in cells of older versions.
    """

    images: int
    curve: Sequence[tuple[float, float]]
    seconds_per_step: float | None
    processor_seconds: NotRequired[float | None]
    held_out_loss: NotRequired[float]
    num_images: NotRequired[int]
    overall: NotRequired[dict[str, FigureEntry]]
    tailor_norm: NotRequired[FigureEntry]
    gradient_share: NotRequired[FigureEntry]
    component_gradient_share: NotRequired[FigureEntry]
    tailor_gradient_share: NotRequired[FigureEntry]


class CellFigures(PointFigures):
    """A cell of a suite that trains: the last of its points."""

    arm: str
    title: str
    task: str
    seed: int
    classes: list[str]
    trained: NotRequired[int]
    flops: NotRequired[int]
    points: NotRequired[list[PointFigures]]


def write_cell(file: Path, figures: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> None:
    """Write one file, whole or not there."""
    with staged(file, PART, force=True) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, figures=json.dumps(figures), **cast(Any, arrays))


@contextmanager
def opened_cell(file: Path) -> Iterator[tuple[Any, Mapping[str, np.ndarray]]]:
    """Figures and arrays, which are read when they are asked for; raises ResultsError where the file is damaged."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            yield json.loads(str(stored["figures"])), stored
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise ResultsError(f"{file} is damaged: {reason}", "remove it and make it again with --resume") from error


@dataclass(frozen=True, slots=True)
class SeenFiles:
    """What networks saw in the pictures of each class, a file a class in `folder`, from where a killed cell goes on."""

    folder: Path

    def __call__(self, label: int, see: Callable[[], list[Observed]]) -> list[Observed]:
        """What lies there of `label`, else what `see` returns, which is kept."""
        file = self.folder / f"{label}.npz"
        if not file.exists():
            seen = see()
            self.folder.mkdir(parents=True, exist_ok=True)
            arrays = {f"{number}/{name}": rows for number, one in enumerate(seen) for name, rows in one.items()}
            write_cell(file, {"networks": len(seen)}, arrays)
            return seen
        with opened_cell(file) as (figures, stored):
            return [
                {name.partition("/")[2]: stored[name] for name in stored if name.startswith(f"{number}/")}
                for number in range(figures["networks"])
            ]
