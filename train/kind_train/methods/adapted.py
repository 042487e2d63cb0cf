"""Methods that freeze a dense model and let the weight of each matrix run through a small trained module."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kind_core.config import DiTConfig
from kind_core.costs.methods import fact_rank
from kind_core.dit import DivertedTransformer
from kind_core.diverted import DenseLinear, Tailor
from kind_train.methods.method import AddedMethod, freeze, replace_layer

_RATE_B, _RATE_L, _WIDTH_L = 5e-3, 3e-3, 1024  # of SVDiff, table 7


class AdaptedLinear(nn.Module):
    """`y = change(W) x + b`; W and b are those of `layer`."""

    def __init__(self, layer: DenseLinear, change: nn.Module) -> None:
        super().__init__()
        self.weight, self.bias, self.change = layer.weight, layer.bias, change

    def forward(self, x: Tensor, tailor: Tailor | None = None) -> Tensor:
        """x (batch, tokens, in) -> (batch, tokens, out)."""
        assert tailor is None, "a dense layer was given a tailor"
        return F.linear(x, self.change(self.weight), self.bias)

    def folded(self) -> DenseLinear:
        """The plain layer of the changed weight."""
        layer = DenseLinear(self.weight.shape[1], self.weight.shape[0])
        layer.weight.copy_(self.change(self.weight))
        layer.bias.copy_(self.bias)
        return layer.to(self.weight.device)


def adapt_matrices(model: DivertedTransformer, make_change: Callable[[Tensor], nn.Module]) -> None:
    """Freeze a dense model and run each of its block matrices through `make_change(weight)`."""
    freeze(model)
    for name, _, _ in model.config.matrix_names():
        layer = model.get_submodule(name)
        assert isinstance(layer, DenseLinear)
        replace_layer(model, name, AdaptedLinear(layer, make_change(layer.weight.detach())))


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
    """https://arxiv.org/abs/2303.11305: only the singular values of each matrix are shifted."""

    name, title = "svdiff", "SVDiff"

    def learning_rate(self, base: DiTConfig) -> float:
        return _RATE_B if base.hidden_size < _WIDTH_L else _RATE_L

    def prepare(self, model: DivertedTransformer, plan: DiTConfig) -> None:
        adapt_matrices(model, SpectralShift)


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
    """https://arxiv.org/abs/2212.03145: all matrices share U and V, and each has a core of its own.

    Of up and down every d x d piece has a core. V starts at zero, so the model starts as its base.
    """

    name, title = "fact-tt", "FacT-TT"

    def prepare(self, model: DivertedTransformer, plan: DiTConfig) -> None:
        rank = fact_rank(plan, model.config.num_classes)
        shared = SharedFactors(plan.hidden_size, rank).to(model.tailors.weight.device)
        adapt_matrices(model, partial(Core, shared))
        model.shared_factors = shared

    def fold(self, model: DivertedTransformer) -> DiTConfig:
        config = super().fold(model)
        del model.shared_factors
        return config
