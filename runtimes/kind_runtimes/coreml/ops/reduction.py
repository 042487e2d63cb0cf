"""Reductions over axes, and cumulative sums. `axes` None means all of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kind_runtimes.coreml.ops.registry import RuleFunction, add_formulas, rule

_Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _reduce_product(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = torch.prod(x, axis, keepdim=keep_dims)
    return x


_REDUCTIONS: dict[str, _Reduction] = {
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


def _over_axes(reduction: _Reduction) -> RuleFunction:
    return lambda x, keep_dims, axes=None: reduction(x, list(range(x.dim())) if axes is None else axes, keep_dims)


add_formulas({op_type: _over_axes(reduction) for op_type, reduction in _REDUCTIONS.items()})
add_formulas(
    {
        "reduce_argmax": lambda x, axis, keep_dims, output_dtype="int32": torch.argmax(x, axis, keepdim=keep_dims),
        "reduce_argmin": lambda x, axis, keep_dims, output_dtype="int32": torch.argmin(x, axis, keepdim=keep_dims),
    }
)


@rule("cumsum")
def cumsum(x: Tensor, axis: int, exclusive: bool, reverse: bool) -> Tensor:
    """Sums of all values up to each one along `axis`, without itself if `exclusive`, from the end if `reverse`."""
    ordered = x.flip(axis) if reverse else x
    total = torch.cumsum(ordered, axis)
    total = total - ordered if exclusive else total
    return total.flip(axis) if reverse else total
