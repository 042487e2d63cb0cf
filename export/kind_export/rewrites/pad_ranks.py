"""Given: factored learngene matrices of any rank.
Result: ranks padded with zero components to a multiple of 8, which fills vector registers and hardware tiles.

`Matrix.rank` keeps the unpadded live rank, which counters report.
"""

from __future__ import annotations

from dataclasses import replace

from torch.nn import functional as F

from kind_export.compact import CompactModel, Factors, Matrix

MULTIPLE = 8


def padded(rank: int) -> int:
    """The next multiple of 8."""
    return -(-rank // MULTIPLE) * MULTIPLE


def pad_ranks(model: CompactModel) -> CompactModel:
    """Pad the factors of every learngene matrix that is factored."""
    return replace(model, blocks=tuple({name: _pad(m) for name, m in block.items()} for block in model.blocks))


def _pad(matrix: Matrix) -> Matrix:
    learngene = matrix.learngene
    if not isinstance(learngene, Factors):
        return matrix
    assert learngene.scale is None, "fold_scales comes first"
    extra = padded(learngene.rank) - learngene.rank
    gate = None if matrix.gate is None else F.pad(matrix.gate, (0, extra))
    factors = Factors(up=F.pad(learngene.up, (0, extra)), scale=None, down=F.pad(learngene.down, (0, 0, 0, extra)))
    return replace(matrix, learngene=factors, gate=gate)
