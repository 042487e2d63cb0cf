"""Given: conditioning baked into a table.
Result: the null label's modulations and, for each class, its distance from them at low rank, where that is smaller.

The distance between a class and the null label is a function of the step that few directions describe. Not exact: the
rank is the smallest that keeps the rms error of every class and step `MIN_ERROR_DB` below the range of the table, and
the error stays in the table as `error_db`. Every step, because modulations change fastest in the last few: over a
hundred steps a mean hides an error there that is ten times as large.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace

import torch
from torch import Tensor

from kind_core.precisions import EXACT, PRECISIONS, PrecisionName
from kind_export.compact.model import (
    CompactModel,
    Conditioning,
    ConditioningTable,
    LowRankTable,
    ModulationTable,
    apply_adaln,
)

MIN_ERROR_DB = PRECISIONS[EXACT].table_error_db


def table_error_db(precision: PrecisionName | None) -> float:
    """How close a table must be, where the weights beside it lose more than it does."""
    return MIN_ERROR_DB if precision is None else PRECISIONS[precision].table_error_db


@torch.no_grad()
def factor_modulations(model: CompactModel, min_error_db: float = MIN_ERROR_DB) -> CompactModel:
    """Hold the modulations at low rank where that takes fewer numbers; other models are left as they are."""
    values = modulations(model)
    if values is None:
        return model
    table = factor_table(values, min_error_db)
    is_smaller = _count_numbers(table) < _count_numbers(model.conditioning)
    return replace(model, conditioning=table) if is_smaller else model


def modulations(model: CompactModel) -> Tensor | None:
    """(steps, classes + 1, 6 * depth + 2, hidden), the null label last; None where they are not baked."""
    source = model.conditioning
    if isinstance(source, ModulationTable):
        return source.values
    if isinstance(source, ConditioningTable):
        flat = apply_adaln(source.vectors, source.weight, source.bias, source.reads)
        return flat.reshape(*flat.shape[:2], -1, model.config.hidden_size)
    return None


def factor_table(values: Tensor, min_error_db: float, max_rank: int | None = None) -> LowRankTable:
    """The low-rank form of modulations, of the smallest rank that is close enough, or of `max_rank`."""
    null, classes = values[:, -1], values[:, :-1].transpose(0, 1)
    parts = [_decompose((rows - null).flatten(1).double()) for rows in classes]
    span = float(values.max() - values.min())
    ranks = range(1, 1 + min(values.shape[0], max_rank or values.shape[0]))
    rank = next((r for r in ranks if _worst_db(parts, r, span) >= min_error_db), ranks[-1])
    basis = torch.stack([basis[:rank] for _, basis in parts]).float()
    return LowRankTable(
        null=null.contiguous(),
        coefficients=torch.stack([vectors[:, :rank] for vectors, _ in parts]).float(),
        basis=basis.reshape(*basis.shape[:2], *null.shape[1:]),
        error_db=_worst_db(parts, rank, span),
    )


def _count_numbers(source: Conditioning) -> int:
    held = (getattr(source, part.name) for part in fields(source))
    return sum(one.numel() for one in held if isinstance(one, Tensor))


def _decompose(rows: Tensor) -> tuple[Tensor, Tensor]:
    """rows (steps, width) as orthonormal vectors (steps, steps), the strongest first, @ basis (steps, width)."""
    _, vectors = torch.linalg.eigh(rows @ rows.T)
    vectors = vectors.flip(1)
    strongest = vectors.abs().argmax(dim=0)
    vectors = vectors * vectors.gather(0, strongest[None]).sign()  # the sign is free: fix it, so that bytes are equal
    return vectors, vectors.T @ rows


def _worst_db(parts: list[tuple[Tensor, Tensor]], rank: int, span: float) -> float:
    # the rms of what the left-out directions, which are orthogonal, hold of a step, below the range of the table
    lost = max(
        float((vectors[:, rank:].square() @ basis[rank:].square().sum(dim=1)).max()) / basis.shape[1]
        for vectors, basis in parts
    )
    return 200.0 if lost <= 0 or span <= 0 else min(200.0, 20 * math.log10(span / math.sqrt(lost)))
