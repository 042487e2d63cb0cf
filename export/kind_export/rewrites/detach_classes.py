"""Given: a model of some classes, with s folded and the modulations baked.
Result: the base without them, whose programs take a class as inputs, and what each class puts there.

The base does not depend on the classes but for the rank of their modulations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kind_export.compact.model import CompactModel, Factors, Matrix
from kind_export.compact.tailors import TailorLayout
from kind_export.rewrites.factor_modulations import MIN_ERROR_DB, factor_table, modulations

# What keeps a pack of kind-b/2 below 2 MB in fp16: 497,664 numbers of tailor and 56,832 a rank.
MAX_TABLE_RANK = 8
# Of a few-step model, whose rows are few: what keeps it below 1.25 MB at four steps, and loses no more than 8 of 20 do.
_MIN_FEW_STEP_RANK, _FEW_STEP_SHARE = 2, MAX_TABLE_RANK / 20


@dataclass(frozen=True, kw_only=True, slots=True)
class DetachedClass:
    """What a class adds to a base: tailor (1, width), modulation_basis (rank, rows * hidden), and
    modulation_coefficients (steps, rank). `error_db`: of its modulations, below the range of the table."""

    tailor: Tensor
    modulation_basis: Tensor
    modulation_coefficients: Tensor
    error_db: float


@torch.no_grad()
def detach_classes(
    model: CompactModel, tailor_rank: int, table_rank: int | None = None
) -> tuple[CompactModel, tuple[DetachedClass, ...]]:
    """Split `model`; `table_rank` is that of an existing base, by default the smallest that is close enough."""
    values = modulations(model)
    assert values is not None, "bake_conditioning comes first"
    table = factor_table(values, MIN_ERROR_DB if table_rank is None else 1e9, table_rank or _max_rank(model))
    rows = TailorLayout(model.config, tailor_rank).rows(model)
    classes = tuple(
        DetachedClass(
            tailor=rows[c : c + 1],
            modulation_basis=table.basis[c].flatten(1),
            modulation_coefficients=table.coefficients[c],
            error_db=factor_table(values[:, [c, -1]], 1e9, table.rank).error_db,
        )
        for c in range(model.num_classes)
    )
    null = replace(table, coefficients=table.coefficients[:0], basis=table.basis[:0])
    detached = model.map_matrices(lambda matrix: _detach(matrix, tailor_rank))
    return replace(detached, conditioning=null, pack_rank=tailor_rank), classes


def _max_rank(model: CompactModel) -> int:
    if model.sampler.takes_guidance:
        return MAX_TABLE_RANK
    return min(MAX_TABLE_RANK, max(_MIN_FEW_STEP_RANK, int(_FEW_STEP_SHARE * model.sampler.steps)))


def _detach(matrix: Matrix, tailor_rank: int) -> Matrix:
    assert isinstance(matrix.learngene, Factors), "choose_forms comes later"
    return replace(matrix, tailors=(), rank=matrix.learngene.rank + tailor_rank)
