"""Given: factors with their s apart, and attention that scales its scores.
Result: s multiplied into the down factors, and the attention scale into q; no scaling is left to run.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from kind_export.compact.model import CompactModel, Factors, Matrix


def fold_scales(model: CompactModel) -> CompactModel:
    """Fold s into `down` of every matrix and 1 / sqrt(head size) into `up` and the bias of q."""
    blocks = []
    for block in model.blocks:
        folded = {name: _fold_matrix(matrix) for name, matrix in block.items()}
        folded["q"] = _scale_output(folded["q"], model.attention_scale)
        blocks.append(folded)
    return replace(model, blocks=tuple(blocks), attention_scale=1.0)


def _fold_matrix(matrix: Matrix) -> Matrix:
    return replace(matrix, learngene=_fold(matrix.learngene), tailors=tuple(_fold_factors(t) for t in matrix.tailors))


def _fold(learngene: Factors | Tensor) -> Factors | Tensor:
    return _fold_factors(learngene) if isinstance(learngene, Factors) else learngene


def _fold_factors(factors: Factors) -> Factors:
    if factors.scale is None:
        return factors
    return Factors(up=factors.up, scale=None, down=factors.down * factors.scale[:, None])


def _scale_output(matrix: Matrix, scale: float) -> Matrix:
    learngene = matrix.learngene
    scaled = replace(learngene, up=learngene.up * scale) if isinstance(learngene, Factors) else learngene * scale
    tailors = tuple(replace(t, up=t.up * scale) for t in matrix.tailors)
    return replace(matrix, learngene=scaled, tailors=tailors, bias=matrix.bias * scale)
