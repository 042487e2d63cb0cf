"""The cells of a training suite: arms x tasks x seeds, each of which anyone can make by itself, in any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from kind_core.errors import ConfigError
from kind_train.benchmark.suite import Arm, Scale
from kind_train.benchmark.tasks import Task

CELLS, RUNS, REAL = "cells", "runs", "real"  # in the folder of the results


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_T = TypeVar("_T", bound=_Named)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRequest:
    """What a training suite is run on: a decomposed and a dense base, where they are given, and `tasks`.

    `base_data` are the photos of stages before the last one, `size` is the side of those of models that a suite begins
    (the preset's). `real`: statistics of the photos of each task, a folder of
    `TASK.safetensors`, or one file for one task. `steps` and `guidance` of drawing are else the checkpoints' own.
    `seed` is that of the first picture of each class.
    """

    tasks: tuple[Task, ...]
    checkpoint: Path | None = None
    dense: Path | None = None
    base_data: str | None = None
    preset: str | None = None
    size: int | None = None
    real: Path | None = None
    classifier: Path | None = None
    inception_weights: str | None = None
    dinov2: str | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    device: str = "cpu"


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

    def file(self, output: Path) -> Path:
        """Its result, whole or not there."""
        return output / CELLS / f"{self.name}.npz"


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
