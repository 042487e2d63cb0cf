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
    labels = [index, model.num_classes] if _has_null(model) else [index]  # the null label comes last
    return replace(model, config=config, blocks=blocks, conditioning=_pick_label(model.conditioning, labels))


def _pick_tailor(matrix: Matrix, index: int) -> Matrix:
    return replace(matrix, tailors=matrix.tailors[index : index + 1])


def _has_null(model: CompactModel) -> bool:
    match model.conditioning:
        case ConditioningTable(vectors=rows) | ModulationTable(values=rows):
            return rows.shape[1] > model.num_classes
        case _:
            return True


def _pick_label(source: Conditioning, labels: list[int]) -> Conditioning:
    match source:
        case Embedders():
            return replace(source, label_embeddings=source.label_embeddings[labels])
        case ConditioningTable():
            return replace(source, vectors=source.vectors[:, labels])
        case ModulationTable():
            return replace(source, values=source.values[:, labels])
        case LowRankTable():
            one = slice(labels[0], labels[0] + 1)
            return replace(source, coefficients=source.coefficients[one], basis=source.basis[one])
