"""The diverted layer of KIND: a matrix held as rank-one components, some for every class, some behind a class gate.

    W_c = U_G diag(s_G) V_G^T + U_c diag(s_c) V_c^T            (paper, Eq. 5-7)

The first term is the learngene's, the second the tailor's of class c. For an image of class c only these components
take part, forward and backward (Alg. 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Matrix products of a GPU in half precision want dimensions of whole 16-byte lines.
GPU_RANK_MULTIPLE = 8


class Tailor(NamedTuple):
    """The open tailor components of one matrix for each sample of a batch, with the gates already in `s`.

    U is (batch, rank, out), s (batch, rank), V (batch, rank, in): components are rows here, so that a class is one
    contiguous piece of the bank; files hold the paper's (out, rank) and (in, rank).
    """

    U: Tensor
    s: Tensor
    V: Tensor


class DivertedLinear(nn.Module):
    """A linear layer `y = W_c x + b`: the learngene factors are its parameters, the tailor comes with each call.

    `is_thin`: the learngene runs as two thin products, otherwise as one materialised W_G. It starts as whichever has
    fewer multiplications for a token; a trainer may set what it measured to be faster. The two differ in rounding only.
    """

    def __init__(self, in_features: int, out_features: int, learngene_rank: int, tailor_rank: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.U = nn.Parameter(torch.empty(out_features, learngene_rank))
        self.s = nn.Parameter(torch.empty(learngene_rank))
        self.V = nn.Parameter(torch.empty(in_features, learngene_rank))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.live_rank = learngene_rank + tailor_rank
        self.is_thin = learngene_rank * (in_features + out_features) < in_features * out_features
        init_factors(self.U, self.s, self.V, in_features, out_features, self.live_rank)

    def forward(self, x: Tensor, tailor: Tailor | None) -> Tensor:
        """x (batch, tokens, in) -> (batch, tokens, out)."""
        return project([self], x, [tailor])[0]

    def learngene_weight(self) -> Tensor:
        """W_G = U diag(s) V^T, (out, in)."""
        return (self.U * self.s) @ self.V.T


class DenseLinear(nn.Linear):
    """The matrix of an ordinary DiT, called like a diverted layer; it has no tailor."""

    def forward(self, x: Tensor, tailor: Tailor | None = None) -> Tensor:
        """x (batch, tokens, in) -> (batch, tokens, out)."""
        assert tailor is None, "a dense layer was given a tailor"
        return super().forward(x)


def project(layers: Sequence[DivertedLinear], x: Tensor, tailors: Sequence[Tailor | None]) -> list[Tensor]:
    """`layer(x, tailor)` of layers of one shape that share their input, which is read once for all of them.

    s is multiplied into the factors, which are smaller than what they are applied to.
    """
    if layers[0].is_thin:
        V = torch.cat([_pad(layer.V * layer.s, x) for layer in layers], dim=1)  # (in, layers * rank)
        hidden = F.linear(x, V.T).chunk(len(layers), dim=-1)
        results = [F.linear(h, _pad(one.U, x), one.bias) for h, one in zip(hidden, layers, strict=True)]
    else:
        results = [F.linear(x, layer.learngene_weight(), layer.bias) for layer in layers]
    opened = [tailor for tailor in tailors if tailor is not None]
    if not opened:
        return results
    assert len(opened) == len(layers), "either every layer has a tailor or none"
    V = torch.cat([tailor.V * tailor.s[..., None] for tailor in opened], dim=1)  # (batch, layers * rank, in)
    parts = (x @ V.transpose(1, 2)).chunk(len(layers), dim=-1) if V.shape[1] else ()
    return [y + h @ tailor.U for y, h, tailor in zip(results, parts, opened, strict=True)] if parts else results


def _pad(factor: Tensor, x: Tensor) -> Tensor:
    """`factor` (features, rank) with zero components where that suits the device of `x`; the result is the same."""
    missing = -factor.shape[1] % GPU_RANK_MULTIPLE if x.is_cuda else 0
    return F.pad(factor, (0, missing)) if missing else factor


@torch.no_grad()
def init_factors(U: Tensor, s: Tensor, V: Tensor, in_features: int, out_features: int, live_rank: int) -> None:
    """Draw factors so that a W of `live_rank` such components has the variance of Xavier's init, 2 / (in + out).

    Var W = rank * Var U * s^2 * Var V with Var U = 1 / out and Var V = 1 / in (columns of length about one).
    """
    nn.init.normal_(U, std=out_features**-0.5)
    nn.init.normal_(V, std=in_features**-0.5)
    nn.init.constant_(s, math.sqrt(2 / (in_features + out_features) * in_features * out_features / max(live_rank, 1)))
