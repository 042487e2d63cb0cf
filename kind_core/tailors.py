"""The bank of tailors: one row a class, holding its factors of every matrix and its label embedding.

A row is all that is ever gathered, stepped, stored or downloaded for a class, so a class can come and go without
touching another. Ranks that differ by class are padded with zero components, which stay zero: with U, s and V all
zero every gradient of the component vanishes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kind_core.config import DiTConfig
from kind_core.diverted import RANK_MULTIPLE, Tailor, init_factors


class _Span(NamedTuple):
    start: int
    shape: tuple[int, ...]

    def read(self, row: Tensor) -> Tensor:
        """The view of `row` (..., width) that this span covers, (..., *shape)."""
        span = row.narrow(-1, self.start, _numel(self.shape))
        return span.view(*span.shape[:-1], *self.shape)


class TailorBank(nn.Module):
    """`weight` (classes, width): the tailors and label embeddings of all classes."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.rank = max(config.ranks)
        self.spans, self.width = _layout(config, self.rank)
        self.weight = nn.Parameter(torch.zeros(config.num_classes, self.width))
        for index in range(config.num_classes):
            self.init_class(index)

    @torch.no_grad()
    def init_class(self, index: int) -> None:
        """Draw a fresh tailor and label embedding for class `index`."""
        row, rank = self.weight[index], self.config.ranks[index]
        row.zero_()
        nn.init.normal_(self.spans["label_embedding"].read(row), std=0.02)
        live_rank = (self.config.learngene_rank or 0) + rank
        for name, out_features, in_features in self._matrices():
            U, s, V = self.factors(row, name)
            init_factors(U[:rank], s[:rank], V[:rank], in_features, out_features, live_rank)

    def factors(self, row: Tensor, matrix: str) -> tuple[Tensor, Tensor, Tensor]:
        """(U, s, V) of one matrix as views of row (..., width): (..., rank, out), (..., rank), (..., rank, in)."""
        U, s, V = (self.spans[f"{matrix}.{factor}"].read(row) for factor in "UsV")
        return U, s, V

    def label_embeddings(self, rows: Tensor | None = None) -> Tensor:
        """(classes, hidden), or (classes, depth, hidden) with embedders of each block."""
        return self.spans["label_embedding"].read(self.weight if rows is None else rows)

    def open(self, gates: Tensor, rows: Tensor | None = None) -> dict[str, Tailor]:
        """The tailors that `gates` open, by matrix.

        gates: long (batch,), a class index or any other number (-1, num_classes) for no gate; or float
        (batch, classes), a gate for each class. rows: what to gather from instead of the whole bank (the trainer
        passes the rows of the batch alone, so that a step costs the same for 40 classes and for 1000).
        """
        if self.rank == 0:
            return {}
        weight = self.weight if rows is None else rows
        device_type = weight.device.type
        if torch.is_autocast_enabled(device_type):
            weight = weight.to(torch.get_autocast_dtype(device_type))  # once, before it is spread over the batch
        gather, gate = _gather_by_index(gates, weight) if gates.dtype == torch.long else _gather_by_weight(gates)
        # One split, whose gradient is one concatenation: a view of each span would add up as many zero-filled banks.
        pieces = torch.split(weight, [_numel(span.shape) for span in self.spans.values()], dim=1)
        # a GPU's products want whole lines here too; on a CPU the fewest components are the fastest
        missing = -self.rank % (RANK_MULTIPLE if weight.is_cuda else 1)
        spread = {
            name: gather(_pad_rank(torch.unflatten(piece, 1, span.shape), missing)).flatten(1, 2)
            for (name, span), piece in zip(self.spans.items(), pieces, strict=True)
            if name != "label_embedding"
        }  # each (batch, open classes * rank, ...)
        gate = gate.to(weight.dtype).repeat_interleave(self.rank + missing, dim=1)
        return {
            name: Tailor(spread[f"{name}.U"], spread[f"{name}.s"] * gate, spread[f"{name}.V"])
            for name, _, _ in self._matrices()
        }

    def state_of(self, index: int) -> dict[str, Tensor]:
        """The tensors of one class as its file holds them: `<matrix>.U` (out, rank), `.s`, `.V` (in, rank)."""
        row, rank = self.weight.detach()[index], self.config.ranks[index]
        state = {"label_embedding": self.spans["label_embedding"].read(row)}
        for name, _, _ in self._matrices() if rank else ():
            U, s, V = self.factors(row, name)
            state |= {f"{name}.U": U[:rank].T, f"{name}.s": s[:rank], f"{name}.V": V[:rank].T}
        return {key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()}

    @torch.no_grad()
    def load_class(self, index: int, state: dict[str, Tensor]) -> None:
        """Put the tensors of `state_of` back; they must have been checked against `class_shapes`."""
        row, rank = self.weight[index], self.config.ranks[index]
        row.zero_()
        self.spans["label_embedding"].read(row).copy_(state["label_embedding"])
        for name, _, _ in self._matrices() if rank else ():
            U, s, V = self.factors(row, name)
            U[:rank].copy_(state[f"{name}.U"].T)
            s[:rank].copy_(state[f"{name}.s"])
            V[:rank].copy_(state[f"{name}.V"].T)

    def _matrices(self) -> Iterator[tuple[str, int, int]]:
        return iter([] if self.rank == 0 else self.config.matrix_names())


class _Pick(torch.autograd.Function):
    """`table[index]` for rows (classes, ...) and an index (batch,).

    The gradient is summed in a fixed order: by a product with a one-hot matrix on a GPU, where adding by index is not.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.num_rows = table.shape[0]
        return table.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        if gradient.device.type == "cpu":
            zeros = gradient.new_zeros(ctx.num_rows, *gradient.shape[1:])
            return zeros.index_add_(0, index, gradient), None
        one_hot = (index == torch.arange(ctx.num_rows, device=index.device)[:, None]).to(gradient.dtype)
        return (one_hot @ gradient.flatten(1)).unflatten(1, gradient.shape[1:]), None


def _gather_by_index(gates: Tensor, weight: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """How rows are spread over the batch, (classes, ...) -> (batch, 1, ...), and the gate of each, (batch, 1)."""
    is_open = (gates >= 0) & (gates < weight.shape[0])
    index = gates * is_open
    return lambda piece: _Pick.apply(piece, index)[:, None], is_open[:, None]  # type: ignore[no-untyped-call]


def _gather_by_weight(gates: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The same for gates (batch, classes): every sample has the classes that any of them opens, (batch, open, ...)."""
    live = gates.any(dim=0).nonzero()[:, 0]

    def spread(piece: Tensor) -> Tensor:
        rows = piece[live]
        return rows.expand(gates.shape[0], *rows.shape)

    return spread, gates[:, live]


def _pad_rank(piece: Tensor, missing: int) -> Tensor:
    """`piece` (classes, rank) or (classes, rank, features) with so many zero components more."""
    return F.pad(piece, (0, 0) * (piece.dim() - 2) + (0, missing)) if missing else piece


def class_shapes(config: DiTConfig, index: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in the file of class `index`."""
    rank = config.ranks[index]
    shapes: dict[str, tuple[int, ...]] = {"label_embedding": config.label_shape}
    for name, out_features, in_features in config.matrix_names() if rank else ():
        shapes |= {f"{name}.U": (out_features, rank), f"{name}.s": (rank,), f"{name}.V": (in_features, rank)}
    return shapes


def _layout(config: DiTConfig, rank: int) -> tuple[dict[str, _Span], int]:
    shapes: dict[str, tuple[int, ...]] = {"label_embedding": config.label_shape}
    for name, out_features, in_features in config.matrix_names() if rank else ():
        shapes |= {f"{name}.U": (rank, out_features), f"{name}.s": (rank,), f"{name}.V": (rank, in_features)}
    spans, start = {}, 0
    for name, shape in shapes.items():
        spans[name] = _Span(start, shape)
        start += _numel(shape)
    return spans, start


def _numel(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
