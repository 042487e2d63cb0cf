"""Given: a model of one class, with factored learngene matrices.
Result: the tailor's components appended to those factors, with a gate that closes them for the null half.

Two thin products instead of four. Dense matrices keep their tailor apart, because the two halves differ by it.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from kind_export.compact.model import CompactModel, Factors, Matrix


def merge_tailor(model: CompactModel) -> CompactModel:
    """Append the tailor to every factored learngene matrix; models of several classes are left as they are."""
    return model.map_matrices(_merge) if model.num_classes == 1 else model


def _merge(matrix: Matrix) -> Matrix:
    learngene = matrix.learngene
    if not isinstance(learngene, Factors) or not matrix.tailors:
        return matrix
    (tailor,) = matrix.tailors
    assert learngene.scale is None, "fold_scales comes first"
    assert tailor.scale is None, "fold_scales comes first"
    gate = torch.ones(2, 1, learngene.rank + tailor.rank)
    gate[1, :, learngene.rank :] = 0
    merged = Factors(
        up=torch.cat([learngene.up, tailor.up], dim=1), scale=None, down=torch.cat([learngene.down, tailor.down])
    )
    return replace(matrix, learngene=merged, tailors=(), gate=gate)
