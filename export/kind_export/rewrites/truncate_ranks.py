"""Given: a model with s folded, and a rank or a share of energy to keep.
Result: each learngene matrix at the lowest rank that holds that share, at most that rank. Not exact.

The singular values of the composed matrix say what is lost: `energy` 0.99 keeps 99 % of the sum of their squares
(Eckart-Young). Tailors are left as they are. The relative error of all matrices together stays in `truncation_error`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from kind_core.config import DiTConfig
from kind_export.compact.model import CompactModel, Factors, Matrix


def may_cut(config: DiTConfig, max_rank: int | None, energy: float | None) -> bool:
    """Whether these limits may take something from a model: a rank that it does not reach takes nothing."""
    full = config.learngene_rank or config.hidden_size
    return (max_rank is not None and max_rank < full) or (energy is not None and energy < 1)


@torch.no_grad()
def truncate_ranks(model: CompactModel, max_rank: int | None, energy: float | None) -> CompactModel:
    """Cut every learngene matrix; where the limits take nothing the model is left as it is."""
    if not may_cut(model.config, max_rank, energy):
        return model
    truncated = model.map_matrices(lambda matrix: _truncate(matrix, max_rank, energy))
    return replace(truncated, truncation_error=measure_truncation(model, truncated))


def measure_truncation(before: CompactModel, after: CompactModel) -> float:
    """Norm of the difference of all learngene matrices over their norm, from 0 to 1."""
    lost = total = 0.0
    for old, new in zip(before.blocks, after.blocks, strict=True):
        for name, matrix in old.items():
            weight = _product(matrix)
            lost += float((weight - _product(new[name])).square().sum())
            total += float(weight.square().sum())
    return math.sqrt(lost / total) if total else 0.0


def _truncate(matrix: Matrix, max_rank: int | None, energy: float | None) -> Matrix:
    learngene = matrix.learngene
    U, s, Vh = _decompose(learngene)
    rank = min(_rank_of_energy(s, energy), max_rank or len(s))
    root = s[:rank].sqrt()  # shared out evenly, so that neither factor outgrows fp16
    factors = Factors(up=U[:, :rank] * root, scale=None, down=root[:, None] * Vh[:rank])
    tailor_rank = matrix.rank - learngene.rank if isinstance(learngene, Factors) else 0
    return replace(matrix, learngene=factors, rank=rank + tailor_rank)


def _rank_of_energy(s: Tensor, energy: float | None) -> int:
    if energy is None:
        return len(s)
    share = s.double().square().cumsum(0) / s.double().square().sum().clamp(min=1e-300)
    return min(len(s), int((share < energy).sum()) + 1)


def _decompose(learngene: Factors | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The thin SVD; of factors by way of their small core."""
    if isinstance(learngene, Tensor):
        result: tuple[Tensor, Tensor, Tensor] = torch.linalg.svd(learngene, full_matrices=False)
        return result
    assert learngene.scale is None, "fold_scales comes first"
    Q_up, R_up = torch.linalg.qr(learngene.up)
    Q_down, R_down = torch.linalg.qr(learngene.down.T)
    U, s, Vh = torch.linalg.svd(R_up @ R_down.T, full_matrices=False)
    return Q_up @ U, s, Vh @ Q_down.T


def _product(matrix: Matrix) -> Tensor:
    learngene = matrix.learngene
    return learngene if isinstance(learngene, Tensor) else learngene.up @ learngene.down
