"""The cells of a suite, each of which anyone can make by itself, in any order, and what lies in their files.

Those of a training suite are arms x tasks x seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from kind_core.errors import ConfigError
from kind_train.benchmark.suite import Arm, Named, Scale
from kind_train.benchmark.tasks import Task
from kind_train.evaluate.against import FigureEntry
from kind_train.seen_files import opened_arrays

CELLS, RUNS, REAL = "cells", "runs", "real"  # in the folder of the results
# what is measured of the weights themselves
OfWeights = Literal["tailor_norm", "gradient_share", "component_gradient_share", "tailor_gradient_share"]

_T = TypeVar("_T", bound=Named)


def cell_file(output: Path, name: str) -> Path:
    """The result of a cell, whole or not there."""
    return output / CELLS / f"{name}.npz"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One arm on one task with one seed of weights and order of photos."""

    arm: Arm
    task: Task
    seed: int

    @property
    def name(self) -> str:
        """As its file and its run are called."""
        return f"{self.arm.name}--{self.task.name}--{self.seed}"


def list_cells_of(arms: Sequence[Arm], tasks: Sequence[Task], scale: Scale) -> list[Cell]:
    """Task by task, so that what lies side by side in a table is there early."""
    return [Cell(arm=arm, task=task, seed=seed) for seed in scale.seeds for task in tasks for arm in arms]


def choose_cell(cells: Sequence[_T], asked: str) -> _T:
    """The cell of a name, or of a number from 0; raises ConfigError for one that is not there."""
    for cell in cells:
        if cell.name == asked:
            return cell
    if not (asked.isdecimal() and int(asked) < len(cells)):
        message = f"there is no cell {asked!r}, expected a name or 0 to {len(cells) - 1}"
        raise ConfigError(message, "see them with --list-cells")
    return cells[int(asked)]


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
    with opened_arrays(cell_file(output, cell.name)) as (figures, arrays):
        pairs = {name: name.rpartition("/") for name in arrays if "/" in name}
        return Stored(
            cell=cell,
            figures=figures,
            pictures=arrays.get("pictures"),
            seen={(pair[0], pair[2]): arrays[name] for name, pair in pairs.items()},
        )
