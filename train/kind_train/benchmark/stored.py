"""A cell as it lies in its file, read back for the tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kind_train.benchmark.cell_files import CellFigures
from kind_train.benchmark.cells import Cell
from kind_train.seen_files import opened_arrays


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
