"""Given: q, k and v of a block in the same form.
Result: one matrix that reads x once and writes all three. Blocks with mixed forms are left as they are.

Dense matrices are stacked. Factors are stacked on the way down and block-diagonal on the way up only for tailors, whose
rank is small; factored learngenes stay apart, where the zeros of a block-diagonal would cost more than they save.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kind_export.compact.model import CompactModel, Factors, Matrix


def join_qkv(model: CompactModel) -> CompactModel:
    """Join q, k and v of every block where all three are dense."""
    return replace(model, blocks=tuple(_join_block(block) for block in model.blocks))


def _join_block(block: dict[str, Matrix]) -> dict[str, Matrix]:
    parts = [block[name] for name in "qkv"]
    weights = [part.learngene for part in parts if isinstance(part.learngene, Tensor)]
    if len(weights) < len(parts):
        return block
    per_class = zip(*(part.tailors for part in parts), strict=True)
    joined = Matrix(
        learngene=torch.cat(weights),
        tailors=tuple(_join_factors(factors) for factors in per_class),
        bias=torch.cat([part.bias for part in parts]),
        rank=parts[0].rank,
    )
    return {"qkv": joined, **{name: matrix for name, matrix in block.items() if name not in "qkv"}}


def _join_factors(parts: tuple[Factors, ...]) -> Factors:
    assert all(part.scale is None for part in parts), "fold_scales comes first"
    up: Tensor = torch.block_diag(*(p.up for p in parts))  # type: ignore[no-untyped-call]
    return Factors(up=up, scale=None, down=torch.cat([p.down for p in parts]))
