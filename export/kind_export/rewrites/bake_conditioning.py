"""Given: timestep embedder, label embeddings and adaLN layers.
Result: a table looked up by step and label. The embedders are gone, and the adaLN layers too where that is smaller.

For the chosen steps and classes every adaLN output is a constant. The table of those outputs replaces the adaLN
weights when it is smaller than they are; otherwise only the conditioning vector before them becomes a table.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from kind_core.config.checks import require_choice
from kind_export.compact.model import (
    CompactModel,
    ConditioningTable,
    Embedders,
    ModulationTable,
    apply_adaln,
    scale_offset,
)
from kind_export.request import BAKING_MODES


@torch.no_grad()
def bake_conditioning(model: CompactModel, mode: str = "auto") -> CompactModel:
    """Bake the modulations (`on`), the conditioning vectors only (`off`), or whichever is smaller (`auto`)."""
    require_choice("baking", mode, BAKING_MODES)
    source = model.conditioning
    assert isinstance(source, Embedders), "conditioning is baked once"
    vectors = _conditioning_vectors(source, model)
    weight, bias = (torch.cat(parts) for parts in zip(*source.adaln, strict=True))
    num_rows = vectors.shape[0] * vectors.shape[1]
    if mode == "on" or (mode == "auto" and num_rows * bias.numel() < weight.numel() + bias.numel() + vectors.numel()):
        return replace(
            model, conditioning=ModulationTable(values=_modulations(vectors, weight, bias, source.reads, model))
        )
    offset = scale_offset(model.config.depth).expand(-1, model.config.hidden_size).reshape(-1)
    table = ConditioningTable(vectors=vectors, weight=weight, bias=bias + offset, reads=source.reads)
    return replace(model, conditioning=table)


def _conditioning_vectors(source: Embedders, model: CompactModel) -> Tensor:
    # (steps, classes + 1, vectors, hidden); of a distilled model the second is of where the steps end
    times = (model.sampler.timesteps, model.sampler.ends)[: 2 if model.config.end_blocks else 1]
    return torch.cat([_embed(source, torch.from_numpy(one)) for one in times], dim=2)


def _embed(source: Embedders, timesteps: Tensor) -> Tensor:
    # (steps, classes + 1, embedders, hidden)
    embedded = source.timestep_mlp(timesteps).reshape(len(timesteps), 1, *source.label_embeddings.shape[1:])
    return F.silu(embedded + source.label_embeddings)


def _modulations(vectors: Tensor, weight: Tensor, bias: Tensor, reads: tuple[int, ...], model: CompactModel) -> Tensor:
    # (steps, classes + 1, 6 * depth + 2, hidden)
    values = apply_adaln(vectors, weight, bias, reads).reshape(*vectors.shape[:2], -1, model.config.hidden_size)
    return values + scale_offset(model.config.depth)
