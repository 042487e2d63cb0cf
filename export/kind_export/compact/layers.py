"""Layers of a step program that are written as a target wants them."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kind_core.config import NORM_EPS

NormForm = Literal["native", "matmul", "scaled"]
# Below it a constant input, whose variance is nothing, has an eps beside it that is a number in fp16.
_MIN_PEAK = 2.0**-7


class Norm(nn.Module):
    """LayerNorm without weights; as operator, as products with a constant vector, or divided by its largest number.

    The last is the same in exact arithmetic, and no number of it leaves fp16 whatever it is given.
    """

    mean_weight: Tensor

    def __init__(self, size: int, form: NormForm, eps: float = NORM_EPS) -> None:
        super().__init__()
        self.size = size
        self.eps = eps
        self.form = form
        if form != "native":
            self.register_buffer("mean_weight", torch.full((1, size), 1 / size))

    def forward(self, x: Tensor) -> Tensor:
        if self.form == "native":
            return F.layer_norm(x, (self.size,), eps=self.eps)
        centred = x - F.linear(x, self.mean_weight)
        if self.form == "scaled":
            return self._scaled(centred)
        return centred * (F.linear(centred * centred, self.mean_weight) + self.eps).rsqrt()

    def _scaled(self, centred: Tensor) -> Tensor:
        peak = centred.abs().amax(-1, keepdim=True).clamp(min=_MIN_PEAK)
        unit, root = centred / peak, math.sqrt(self.eps) / peak
        return unit * (unit.square().mean(-1, keepdim=True) + root * root).rsqrt()


class Gelu(nn.Module):
    """tanh-GELU; as operator, or written out."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        if self.form == "native":
            return F.gelu(x, approximate="tanh")
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def make_linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.contiguous(), requires_grad=False)
    return layer


def make_conv(weight: Tensor, bias: Tensor, stride: int) -> nn.Conv2d:
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], stride=stride)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


def class_half(num_halves: int) -> Tensor:
    """(halves, 1, 1): one for the class, zero for the null half."""
    return torch.tensor([1.0, 0.0])[:num_halves].reshape(-1, 1, 1)
