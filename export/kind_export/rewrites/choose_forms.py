"""Given: factors with s folded.
Result: each learngene matrix in the cheaper of two forms, two thin products or one dense matrix.

The cost is the multiplications of a token, which is also the number of weights to read: rank * (in + out) against
in * out. A square matrix is cheaper factored below rank = size / 2, an MLP matrix below 4/5 of the hidden size. With
one class the tailor rides along in the factors (see merge_tailor), so its rank counts; otherwise both pay for it.
Where starting an operator costs more than it computes, one dense product may still be quicker: `dense` forces that.
"""

from __future__ import annotations

from dataclasses import replace

from kind_export.compact.model import CompactModel, Factors, Matrix

FORMS = ("auto", "dense")


def choose_forms(model: CompactModel, forms: str = "auto") -> CompactModel:
    """Multiply out every learngene matrix that is cheaper dense, or all of them."""
    assert forms in FORMS, forms
    return model.map_matrices(lambda matrix: _choose(matrix, forms == "dense"))


def _choose(matrix: Matrix, is_forced: bool) -> Matrix:
    learngene = matrix.learngene
    if not isinstance(learngene, Factors):
        return matrix
    out_features, in_features = matrix.shape
    thin = in_features + out_features
    tailor_rank = matrix.rank - learngene.rank
    rides_along = len(matrix.tailors) == 1
    factored_cost = (matrix.rank if rides_along else learngene.rank) * thin
    dense_cost = out_features * in_features + (tailor_rank * thin if rides_along else 0)
    if factored_cost < dense_cost and not is_forced:
        return matrix
    assert learngene.scale is None, "fold_scales comes first"
    return replace(matrix, learngene=learngene.up @ learngene.down)
