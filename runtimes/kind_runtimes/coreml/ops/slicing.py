"""Slices, splits and joins."""

from __future__ import annotations

import torch
from torch import Tensor

from kind_runtimes.coreml.ops.registry import rule


@rule("slice_by_index", moves=True)
def slice_by_index(
    x: Tensor,
    begin: list[int],
    end: list[int],
    stride: list[int] | None = None,
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
) -> Tensor:
    """x[begin:end:stride] on each axis; a mask opens that end, `squeeze_mask` takes one element and drops the axis."""
    slices = solve_slices(x.dim(), begin, end, stride, begin_mask, end_mask)
    for axis in reversed(range(x.dim())):
        if squeeze_mask and squeeze_mask[axis]:
            x = x.select(axis, slices[axis].start or 0)
        else:
            x = _slice_axis(x, axis, slices[axis])
    return x


@rule("slice_by_size", moves=True)
def slice_by_size(x: Tensor, begin: list[int], size: list[int]) -> Tensor:
    """`size` elements from `begin` on each axis; -1 takes all that remain."""
    for axis, (start, length) in enumerate(zip(begin, size, strict=True)):
        first = start % x.shape[axis] if start < 0 else start
        x = x.narrow(axis, first, x.shape[axis] - first if length == -1 else length)
    return x


@rule("slice_update", moves=True)
def slice_update(
    x: Tensor,
    update: Tensor,
    begin: list[int],
    end: list[int],
    stride: list[int] | None = None,
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
) -> Tensor:
    """x with the slice of `slice_by_index` replaced by `update`; strides are positive."""
    slices = solve_slices(x.dim(), begin, end, stride, begin_mask, end_mask)
    masks = squeeze_mask or [False] * x.dim()
    keys = [(one.start or 0) if squeezed else one for one, squeezed in zip(slices, masks, strict=True)]
    result = x.clone()
    result[tuple(keys)] = update
    return result


def solve_slices(
    rank: int,
    begin: list[int],
    end: list[int],
    stride: list[int] | None,
    begin_mask: list[bool] | None,
    end_mask: list[bool] | None,
) -> list[slice]:
    """Python's slices of MIL's arguments, one per axis."""
    strides = stride or [1] * rank
    no_begin, no_end = begin_mask or [False] * rank, end_mask or [False] * rank
    return [
        slice(
            None if no_begin[axis] else begin[axis],
            None if no_end[axis] else end[axis],
            strides[axis],
        )
        for axis in range(rank)
    ]


def _slice_axis(x: Tensor, axis: int, one: slice) -> Tensor:
    start, stop, step = one.indices(x.shape[axis])
    if (start, stop, step) == (0, x.shape[axis], 1):
        return x
    if step == 1:
        return x.narrow(axis, start, max(0, stop - start))
    return x.index_select(axis, torch.tensor(range(start, stop, step), dtype=torch.long))


@rule("split", moves=True)
def split(x: Tensor, axis: int, num_splits: int | None = None, split_sizes: list[int] | None = None) -> list[Tensor]:
    """Pieces of `x` along `axis`, of given sizes or `num_splits` equal ones."""
    if split_sizes is not None:
        return list(torch.split(x, split_sizes, axis))
    if not num_splits:
        raise ValueError("neither split_sizes nor num_splits is given")
    return list(torch.split(x, x.shape[axis] // num_splits, axis))


@rule("concat", moves=True)
def concat(values: list[Tensor], axis: int, interleave: bool) -> Tensor:
    """Tensors joined along `axis`, element by element in turn if `interleave`. Scalars become a vector."""
    if values[0].dim() == 0:
        return torch.stack(values)
    if not interleave:
        return torch.cat(values, axis)
    axis = axis % values[0].dim()
    return torch.stack(values, axis + 1).flatten(axis, axis + 1)


@rule("stack", moves=True)
def stack(values: list[Tensor], axis: int) -> Tensor:
    """Tensors joined along a new axis."""
    return torch.stack(values, axis)
