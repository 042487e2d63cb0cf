"""Given: a model of several classes, in any state.
Result: the model of one of them, which has the learngene's tensors in common with the others.
"""

from __future__ import annotations

from dataclasses import replace

from kind_export.compact.model import (
    CompactModel,
    Conditioning,
    ConditioningTable,
    Embedders,
    LowRankTable,
    Matrix,
    ModulationTable,
)


def pick_class(model: CompactModel, index: int) -> CompactModel:
    """Keep class `index` and the null label; forms and ranks stay as they were chosen for all classes."""
    ranks = model.config.tailor_ranks
    config = replace(model.config, num_classes=1, tailor_ranks=None if ranks is None else (ranks[index],))
    blocks = tuple({name: _pick_tailor(matrix, index) for name, matrix in block.items()} for block in model.blocks)
    return replace(model, config=config, blocks=blocks, conditioning=_pick_label(model.conditioning, index))


def _pick_tailor(matrix: Matrix, index: int) -> Matrix:
    return replace(matrix, tailors=matrix.tailors[index : index + 1])


def _pick_label(source: Conditioning, index: int) -> Conditioning:
    labels = [index, -1]  # the null label comes last
    match source:
        case Embedders():
            return replace(source, label_embeddings=source.label_embeddings[labels])
        case ConditioningTable():
            return replace(source, vectors=source.vectors[:, labels])
        case ModulationTable():
            return replace(source, values=source.values[:, labels])
        case LowRankTable():
            one = slice(index, index + 1)
            return replace(source, coefficients=source.coefficients[one], basis=source.basis[one])
