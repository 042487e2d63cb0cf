"""SVDiff (https://arxiv.org/abs/2303.11305): only the singular values of each matrix are shifted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kind_core.config import DiTConfig
from kind_core.dit import DivertedTransformer
from kind_train.methods.method import AddedMethod
from kind_train.methods.shared.adapted_linear import adapt_matrices, fold_matrices

_RATE_B, _RATE_L, _WIDTH_L = 5e-3, 3e-3, 1024  # table 7


class SpectralShift(nn.Module):
    """W = U diag(s) V^T -> U diag(relu(s + delta)) V^T; delta trains, from zero."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        U, s, Vt = torch.linalg.svd(weight, full_matrices=False)
        for name, factor in (("U", U), ("s", s), ("Vt", Vt)):
            self.register_buffer(name, factor)
        self.delta = nn.Parameter(torch.zeros_like(s))

    def forward(self, weight: Tensor) -> Tensor:
        """(out, in) -> the same; what it was made of is kept, `weight` is not read."""
        U, s, Vt = self.U, self.s, self.Vt
        return (U * torch.relu(s + self.delta)) @ Vt  # type: ignore[operator]  # buffers are tensors


class SvDiff(AddedMethod):
    name, title = "svdiff", "SVDiff"

    def learning_rate(self, base: DiTConfig) -> float:
        return _RATE_B if base.hidden_size < _WIDTH_L else _RATE_L

    def prepare(self, model: DivertedTransformer, plan: DiTConfig) -> None:
        adapt_matrices(model, lambda name, weight: SpectralShift(weight))

    def fold(self, model: DivertedTransformer) -> DiTConfig:
        return fold_matrices(model)


METHOD = SvDiff()
