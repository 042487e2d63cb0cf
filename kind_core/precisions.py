"""The precisions of exported weights: one table, with the gates that hold for each. Without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PrecisionName = str  # a key of PRECISIONS


@dataclass(frozen=True, kw_only=True, slots=True)
class Precision:
    """How weights are stored, and what a program of such weights is held to, PSNR in dB against the eager model.

    `trajectory_db`: the contract of the project. `step_db`: one step has the error of one pass, not of twenty, so it
    is held tighter. `update_db`: the change of a step, as latents that come back untouched look close late in a
    trajectory. `table_error_db`: how far below their range the modulations may be off, beside weights that lose more.
    """

    name: PrecisionName
    kind: Literal["float", "linear", "palette"]
    weight_bits: int
    trajectory_db: float
    step_db: float
    update_db: float
    table_error_db: float = 66.0

    @property
    def is_float(self) -> bool:
        """Whether weights are stored as numbers; else layers that lose too much may be kept higher."""
        return self.kind == "float"

    @property
    def is_half(self) -> bool:
        return self.is_float and self.weight_bits == 16


def _table(*rows: Precision) -> dict[PrecisionName, Precision]:
    return {row.name: row for row in rows}


# A trajectory of 20 steps, guided, ends 20 to 30 dB below its modulations, well above the gate of 60 dB for fp32; the
# change in the last of a hundred steps ends 42 dB below them, and its gate is 50 dB.
PRECISIONS = _table(
    Precision(
        name="fp32", kind="float", weight_bits=32, trajectory_db=60.0, step_db=70.0, update_db=50.0, table_error_db=98.0
    ),
    Precision(
        name="fp16", kind="float", weight_bits=16, trajectory_db=35.0, step_db=40.0, update_db=25.0, table_error_db=73.0
    ),
    Precision(name="int8", kind="linear", weight_bits=8, trajectory_db=30.0, step_db=30.0, update_db=15.0),
    Precision(name="int4", kind="linear", weight_bits=4, trajectory_db=25.0, step_db=25.0, update_db=10.0),
    Precision(name="palette6", kind="palette", weight_bits=6, trajectory_db=25.0, step_db=25.0, update_db=10.0),
    Precision(name="palette4", kind="palette", weight_bits=4, trajectory_db=25.0, step_db=25.0, update_db=10.0),
)
EXACT = "fp32"
APPROXIMATE = "int4"  # whose gates hold what is not exact by request: ranks were cut


def list_precisions() -> str:
    """The names as a help text has them: palettes are Core ML's alone."""
    common = [one.name for one in PRECISIONS.values() if one.kind != "palette"]
    palettes = [one.name for one in PRECISIONS.values() if one.kind == "palette"]
    return f"{', '.join(common[:-1])} or {common[-1]}; for Core ML also {', '.join(palettes)}"
