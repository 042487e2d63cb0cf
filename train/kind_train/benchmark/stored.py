"""A cell as it lies in its file: its figures, and arrays of what was drawn and seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from kind_train.benchmark.cells import Cell
from kind_train.evaluate.against import FigureEntry
from kind_train.seen_files import opened_arrays

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A cell as it lies in its file."""

    cell: Cell
    figures: CellFigures
    pictures: NDArray[np.uint8] | None
    seen: Mapping[tuple[str, str], NDArray[np.float32]]


def read_cell(cell: Cell, output: Path) -> Stored:
    """What `TrainingRunner.make` wrote."""
    with opened_arrays(cell.file(output)) as (figures, arrays):
        pairs = {name: name.rpartition("/") for name in arrays if "/" in name}
        return Stored(
            cell=cell,
            figures=figures,
            pictures=arrays.get("pictures"),
            seen={(pair[0], pair[2]): arrays[name] for name, pair in pairs.items()},
        )
