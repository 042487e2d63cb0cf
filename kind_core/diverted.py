"""The diverted layer of KIND: a matrix held as rank-one components, some for every class, some behind a class gate.

    W_c = U_G diag(s_G) V_G^T + U_c diag(s_c) V_c^T            (paper, Eq. 5-7)

The first term is the learngene's, the second the tailor's of class c. For an image of class c only these components
take part, forward and backward (Alg. 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Matrix products are up to a third faster where their dimensions are whole lines: of 16 bytes on a GPU in half
# precision, of 32 on a CPU.
RANK_MULTIPLE = 8


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
    opened = [tailor for tailor in tailors if tailor is not None]
    assert len(opened) in (0, len(layers)), "either every layer has a tailor or none"
    weights = _learngene_factors(layers)
    if not opened or opened[0].s.shape[1] == 0:  # no gate is open
        inputs, weights = _inputs_of_weights(x, weights, len(layers))
        return [F.linear(one, weight, layer.bias) for one, weight, layer in zip(inputs, weights, layers, strict=True)]
    V = torch.cat([tailor.V * tailor.s[..., None] for tailor in opened], dim=1)  # (batch, layers * rank, in)
    tensors = [x, V, *(tailor.U for tailor in opened), *(layer.bias for layer in layers), *weights]
    if torch.is_autocast_enabled(x.device.type):
        tensors = [tensor.to(torch.get_autocast_dtype(x.device.type)) for tensor in tensors]
    return list(_Project.apply(len(layers), *tensors))  # type: ignore[no-untyped-call]


def _learngene_factors(layers: Sequence[DivertedLinear]) -> Sequence[Tensor]:
    """W_G of each layer, (out, in); thin, one joined V, (in, layers * rank), and U of each layer, (out, rank)."""
    if not layers[0].is_thin:
        return [layer.learngene_weight() for layer in layers]
    V = torch.cat([_pad(layer.V * layer.s) for layer in layers], dim=1)
    return [V, *(_pad(layer.U) for layer in layers)]


def _inputs_of_weights(x: Tensor, weights: Sequence[Tensor], count: int) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """What the last product of each layer is taken of, and its weight."""
    if len(weights) == count:
        return [x] * count, weights
    V, *up = weights
    return F.linear(x, V.T).chunk(count, dim=-1), up


class _Project(torch.autograd.Function):
    """Learngene and tailors of `n` layers that share their input, all tensors of one dtype.

    By hand because the sums `learngene + tailor`, forward and for the gradient of x, are then accumulated by the
    products themselves, and every gradient of a tailor is taken in the layout that it is stored in: a product with
    so few components is bound by the memory it touches.

    arguments: n, x (batch, tokens, in), V (batch, n * rank, in), then of each layer U (batch, rank, out), the biases,
    and the weights as `_learngene_factors` gives them.
    """

    @staticmethod
    def forward(ctx: Any, n: int, x: Tensor, V: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        U, biases, weights = rest[:n], rest[n : 2 * n], rest[2 * n :]
        inputs, up = _inputs_of_weights(x, weights, n)
        hidden = (x @ V.transpose(1, 2)).chunk(n, dim=-1)
        results = [F.linear(one, weight, bias) for one, weight, bias in zip(inputs, up, biases, strict=True)]
        for y, h, u in zip(results, hidden, U, strict=True):
            y.baddbmm_(h, u)
        ctx.num_layers, ctx.is_thin = n, len(weights) > n
        ctx.save_for_backward(x, V, *U, *weights, *hidden, *(inputs if ctx.is_thin else ()))
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        n, num_weights = ctx.num_layers, ctx.num_layers + ctx.is_thin
        x, V, *saved = ctx.saved_tensors
        U, weights, hidden = saved[:n], saved[n : n + num_weights], saved[n + num_weights : 2 * n + num_weights]
        inputs = saved[2 * n + num_weights :] if ctx.is_thin else [x] * n
        up = weights[1:] if ctx.is_thin else weights
        needs_x, *_ = needs = ctx.needs_input_grad[1:]
        needs_weights = needs[2 + 2 * n :]
        flat = [g.flatten(0, 1) for g in gradients]

        of_U = [h.transpose(1, 2) @ g for h, g in zip(hidden, gradients, strict=True)]
        of_hidden = torch.cat([g @ u.transpose(1, 2) for g, u in zip(gradients, U, strict=True)], dim=-1)
        of_V = of_hidden.transpose(1, 2) @ x
        of_biases = [g.sum(0) if needed else None for g, needed in zip(flat, needs[2 + n : 2 + 2 * n], strict=True)]
        of_up = [
            g.T @ one.flatten(0, 1) if needed else None
            for g, one, needed in zip(flat, inputs, needs_weights[num_weights - n :], strict=True)
        ]
        # back to the input of the first product, which is one for all layers where they are thin
        of_x, of_down = None, [None] * ctx.is_thin
        if needs_x or needs_weights[0]:
            back = [g @ weight for g, weight in zip(flat, up, strict=True)]
            if ctx.is_thin:
                joined = torch.cat(back, dim=-1)
                of_down = [x.flatten(0, 1).T @ joined]
                back = [joined @ weights[0].T]
            of_x = back[0].unflatten(0, x.shape[:2])
            for one in back[1:]:
                of_x += one.view_as(of_x)
            of_x.baddbmm_(of_hidden, V)
        return None, of_x, of_V, *of_U, *of_biases, *of_down, *of_up


def _pad(factor: Tensor) -> Tensor:
    """`factor` (features, rank) with zero components up to a whole multiple; the products are the same."""
    missing = -factor.shape[1] % RANK_MULTIPLE
    return F.pad(factor, (0, missing)) if missing else factor


@torch.no_grad()
def init_factors(U: Tensor, s: Tensor, V: Tensor, in_features: int, out_features: int, live_rank: int) -> None:
    """Draw factors so that a W of `live_rank` such components has the variance of Xavier's init, 2 / (in + out).

    Var W = rank * Var U * s^2 * Var V with Var U = 1 / out and Var V = 1 / in (columns of length about one).
    """
    nn.init.normal_(U, std=out_features**-0.5)
    nn.init.normal_(V, std=in_features**-0.5)
    nn.init.constant_(s, math.sqrt(2 / (in_features + out_features) * in_features * out_features / max(live_rank, 1)))
