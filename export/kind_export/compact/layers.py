"""Layers of a step program, and tables that it reads a row of, written as a target wants them."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kind_core.config import NORM_EPS

NormForm = Literal["native", "matmul", "scaled"]
LookupForm = Literal["gather", "one_hot"]
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


class LookupModule(nn.Module):
    """Buffers of which a call reads one row, computed with in the module's own dtype however they are stored."""

    TABLES: tuple[str, ...] = ()
    widened_to: torch.dtype | None = None
    form: LookupForm = "gather"

    def store_as(self, dtype: torch.dtype) -> None:
        """Store the tables as `dtype` and widen what is read of them."""
        for name in self.TABLES:
            table = self.get_buffer(name)
            self.widened_to = table.dtype
            self.register_buffer(name, table.to(dtype))

    def join_places(self, *places: Tensor) -> Tensor:
        """Places of several rows as one tensor; a GPU joins no integers."""
        return torch.cat([one if self.form == "gather" else one.to(torch.float32) for one in places])

    def look_up(self, table: Tensor, *index: tuple[Tensor, int]) -> Tensor:
        row = pick_rows(table, *index, form=self.form)
        return row if self.widened_to is None else row.to(self.widened_to)


def pick_rows(table: Tensor, *index: tuple[Tensor, int], form: LookupForm) -> Tensor:
    """Rows of `table` (rows, width), as a gather or as products of one-hot rows with it: (n, width).

    `index` is a place on each of the axes that the rows were made of, the slowest first: (1,) int32, of the last (n,),
    and the length of its axis. The products are exact.
    """
    if form == "gather":
        flat, _ = index[0]
        for place, size in index[1:]:
            flat = flat * size + place
        return table.index_select(0, flat)
    rows = table
    for place, size in index:
        if size > 1:  # of one there is no choice
            rows = _one_hot(place, size).to(table.dtype) @ rows.reshape(size, -1)
    return rows.reshape(-1, *table.shape[1:])


def as_cut(row: Tensor, form: LookupForm) -> Tensor:
    """A row (1, width) as `cut_row` takes it: with a third axis where a GPU slices no less."""
    return row if form == "gather" else row.unsqueeze(0)


def cut_row(row: Tensor, start: int, width: int) -> Tensor:
    """A part of a row."""
    return row[:, start : start + width] if row.dim() == 2 else row[:, :, start : start + width]


def _one_hot(place: Tensor, size: int) -> Tensor:
    """(n,) integers below `size` -> (n, size), by arithmetic: a GPU has no integers, and counts to 2048 in fp16."""
    distance = torch.arange(size, dtype=torch.float32) - place.to(torch.float32).reshape(-1, 1)
    return (1 - distance.abs()).relu()
