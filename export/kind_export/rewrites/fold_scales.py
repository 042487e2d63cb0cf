"""Given: factors with their s apart, and attention that scales its scores.
Result: s multiplied into the down factors, and the attention scale into q; no scaling is left to run.
"""

from __future__ import annotations

from dataclasses import replace

from kind_export.compact.model import CompactModel, Factors, Matrix


def fold_scales(model: CompactModel) -> CompactModel:
    """Fold s into `down` of every matrix and 1 / sqrt(head size) into `up` and the bias of q."""
    folded = model.map_matrices(_fold_matrix)
    blocks = tuple({**block, "q": _scale_output(block["q"], model.attention_scale)} for block in folded.blocks)
    return replace(folded, blocks=blocks, attention_scale=1.0)


def _fold_matrix(matrix: Matrix) -> Matrix:
    learngene = matrix.learngene
    folded = _fold(learngene) if isinstance(learngene, Factors) else learngene
    return replace(matrix, learngene=folded, tailors=tuple(map(_fold, matrix.tailors)))


def _fold(factors: Factors) -> Factors:
    if factors.scale is None:
        return factors
    return Factors(up=factors.up, scale=None, down=factors.down * factors.scale[:, None])


def _scale_output(matrix: Matrix, scale: float) -> Matrix:
    learngene = matrix.learngene
    scaled = replace(learngene, up=learngene.up * scale) if isinstance(learngene, Factors) else learngene * scale
    tailors = tuple(replace(t, up=t.up * scale) for t in matrix.tailors)
    return replace(matrix, learngene=scaled, tailors=tailors, bias=matrix.bias * scale)
