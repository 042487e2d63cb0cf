"""FacT-TT (https://arxiv.org/abs/2212.03145): all matrices share U and V, and each has a core of its own.

Of up and down every d x d piece has a core. V starts at zero, so the model starts as its base.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn

from kind_core.config import DiTConfig
from kind_core.costs.methods import fact_rank
from kind_core.dit import DivertedTransformer
from kind_train.methods.method import AddedMethod
from kind_train.methods.shared.adapted_linear import adapt_matrices, fold_matrices


class SharedFactors(nn.Module):
    """U (d, k) and V (d, k) of every matrix."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.U = nn.Parameter(torch.randn(width, rank) / sqrt(width))
        self.V = nn.Parameter(torch.zeros(width, rank))


class Core(nn.Module):
    """W -> W + U core V^T, piece by piece; core (out / d, in / d, k, k)."""

    def __init__(self, shared: SharedFactors, weight: Tensor) -> None:
        super().__init__()
        d, rank = shared.U.shape
        # in a tuple, so that the shared factors are parameters of the model once and not of every matrix
        self._shared = (shared,)
        pieces = (weight.shape[0] // d, weight.shape[1] // d)
        self.core = nn.Parameter(torch.randn(*pieces, rank, rank, device=weight.device) / sqrt(rank))

    def forward(self, weight: Tensor) -> Tensor:
        """(out, in) -> the same."""
        (shared,) = self._shared
        delta = shared.U @ self.core @ shared.V.T  # (out / d, in / d, d, d)
        return weight + delta.permute(0, 2, 1, 3).reshape(weight.shape)


class FactTt(AddedMethod):
    name, title = "fact-tt", "FacT-TT"

    def prepare(self, model: DivertedTransformer, plan: DiTConfig) -> None:
        rank = fact_rank(plan, model.config.num_classes)
        shared = SharedFactors(plan.hidden_size, rank).to(model.tailors.weight.device)
        adapt_matrices(model, lambda name, weight: Core(shared, weight))
        model.shared_factors = shared

    def fold(self, model: DivertedTransformer) -> DiTConfig:
        config = fold_matrices(model)
        del model.shared_factors
        return config


METHOD = FactTt()
