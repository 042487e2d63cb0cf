"""Reductions over axes, and cumulative sums. `axes` None means all of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kind_runtimes.coreml.ops.registry import RuleFunction, rule

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _reduce_product(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = torch.prod(x, axis, keepdim=keep_dims)
    return x


_REDUCTIONS: dict[str, Reduction] = {
    "reduce_l1_norm": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "reduce_l2_norm": lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt(),
    "reduce_log_sum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "reduce_log_sum_exp": lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep),
    "reduce_max": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "reduce_mean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "reduce_min": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "reduce_prod": _reduce_product,
    "reduce_sum": lambda x, axes, keep: x.sum(axes, keepdim=keep),
    "reduce_sum_square": lambda x, axes, keep: x.square().sum(axes, keepdim=keep),
}


def _make_rule(reduction: Reduction) -> RuleFunction:
    def reduce(x: Tensor, keep_dims: bool, axes: list[int] | None = None) -> Tensor:
        return reduction(x, list(range(x.dim())) if axes is None else axes, keep_dims)

    return reduce


for _op_type, _reduction in _REDUCTIONS.items():
    rule(_op_type)(_make_rule(_reduction))


@rule("reduce_argmax")
def reduce_argmax(x: Tensor, axis: int, keep_dims: bool, output_dtype: str = "int32") -> Tensor:
    """The index of the largest value along `axis`."""
    return torch.argmax(x, axis, keepdim=keep_dims)


@rule("reduce_argmin")
def reduce_argmin(x: Tensor, axis: int, keep_dims: bool, output_dtype: str = "int32") -> Tensor:
    """The index of the smallest value along `axis`."""
    return torch.argmin(x, axis, keepdim=keep_dims)


@rule("cumsum")
def cumsum(x: Tensor, axis: int, exclusive: bool, reverse: bool) -> Tensor:
    """Sums of all values up to each one along `axis`, without itself if `exclusive`, from the end if `reverse`."""
    ordered = x.flip(axis) if reverse else x
    total = torch.cumsum(ordered, axis)
    total = total - ordered if exclusive else total
    return total.flip(axis) if reverse else total
