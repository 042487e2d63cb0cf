"""Given: a model of several classes, in any state.
Result: the model of one of them, which has the learngene's tensors in common with the others.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kind_export.compact.model import (
    CompactModel,
    Conditioning,
    ConditioningTable,
    Embedders,
    LowRankTable,
    ModulationTable,
)


def pick_class(model: CompactModel, index: int) -> CompactModel:
    """Keep class `index` and the null label; forms and ranks stay as they were chosen for all classes."""
    ranks = model.config.tailor_ranks
    config = replace(model.config, num_classes=1, tailor_ranks=None if ranks is None else (ranks[index],))
    picked = model.map_matrices(lambda matrix: replace(matrix, tailors=matrix.tailors[index : index + 1]))
    return replace(picked, config=config, conditioning=_pick_label(model.conditioning, index, model.num_classes))


def _pick_label(source: Conditioning, index: int, null: int) -> Conditioning:
    def pick(rows: Tensor, axis: int) -> Tensor:  # with the null label, which comes last, where it is there
        return rows.index_select(axis, torch.tensor([one for one in (index, null) if one < rows.shape[axis]]))

    match source:
        case Embedders():
            return replace(source, label_embeddings=pick(source.label_embeddings, 0))
        case ConditioningTable():
            return replace(source, vectors=pick(source.vectors, 1))
        case ModulationTable():
            return replace(source, values=pick(source.values, 1))
        case LowRankTable():
            return replace(source, coefficients=pick(source.coefficients, 0), basis=pick(source.basis, 0))
