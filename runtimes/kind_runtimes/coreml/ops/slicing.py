"""Slices, gathers, splits and joins.

Of a gather from iOS 17 on (where `validate_indices` exists) a negative index is out of bounds; before, it wraps.
"""

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
    keys = _solve_keys(x.dim(), begin, end, stride, begin_mask, end_mask, squeeze_mask)
    for axis in reversed(range(x.dim())):
        key = keys[axis]
        x = x.select(axis, key) if isinstance(key, int) else _slice_axis(x, axis, key)
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
    result = x.clone()
    result[tuple(_solve_keys(x.dim(), begin, end, stride, begin_mask, end_mask, squeeze_mask))] = update
    return result


def _solve_keys(rank: int, begin: list[int], end: list[int], *rest: list[int] | list[bool] | None) -> list[slice | int]:
    """Python's indices of MIL's arguments, one per axis; `rest` are stride and masks, None where not given."""
    stride, *masks = rest
    no_begin, no_end, squeeze = (mask or [False] * rank for mask in masks)
    keys: list[slice | int] = []
    for axis, (first, last, step) in enumerate(zip(begin, end, stride or [1] * rank, strict=True)):
        start = None if no_begin[axis] else first
        keys.append(start or 0 if squeeze[axis] else slice(start, None if no_end[axis] else last, step))
    return keys


def _slice_axis(x: Tensor, axis: int, one: slice) -> Tensor:
    start, stop, step = one.indices(x.shape[axis])
    if (start, stop, step) == (0, x.shape[axis], 1):
        return x
    if step == 1:
        return x.narrow(axis, start, max(0, stop - start))
    return x.index_select(axis, torch.tensor(range(start, stop, step), dtype=torch.long))


@rule("gather", moves=True)
def gather(x: Tensor, indices: Tensor, axis: int, batch_dims: int = 0, validate_indices: bool | None = None) -> Tensor:
    """Slices of `x` along `axis`; the first `batch_dims` axes of both go together."""
    axis = axis % x.dim()
    positions = _check_indices(indices, x.shape[axis], wrap=validate_indices is None)
    if batch_dims == 0:
        picked = x.index_select(axis, positions.reshape(-1))
        return picked.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])
    batch = x.shape[:batch_dims]
    rows = zip(x.flatten(0, batch_dims - 1), positions.flatten(0, batch_dims - 1), strict=True)
    picked = torch.stack([gather(row, position, axis - batch_dims) for row, position in rows])
    return picked.reshape(batch + picked.shape[1:])


@rule("gather_along_axis", moves=True)
def gather_along_axis(x: Tensor, indices: Tensor, axis: int, validate_indices: bool | None = None) -> Tensor:
    """out[.., i, ..] = x[.., indices[.., i, ..], ..] along `axis`."""
    return torch.gather(x, axis, _check_indices(indices, x.shape[axis], wrap=validate_indices is None))


@rule("gather_nd", moves=True)
def gather_nd(x: Tensor, indices: Tensor, batch_dims: int = 0, validate_indices: bool | None = None) -> Tensor:
    """Slices of `x` at the coordinates in the last axis of `indices`."""
    if batch_dims:
        rows = zip(x.flatten(0, batch_dims - 1), indices.flatten(0, batch_dims - 1), strict=True)
        picked = torch.stack([gather_nd(row, position, 0, validate_indices) for row, position in rows])
        return picked.reshape(x.shape[:batch_dims] + picked.shape[1:])
    wrap = validate_indices is None
    columns = zip(indices.unbind(-1), x.shape, strict=False)
    return x[tuple(_check_indices(column, size, wrap=wrap) for column, size in columns)]


def _check_indices(indices: Tensor, size: int, *, wrap: bool) -> Tensor:
    """Indices as int64. A device reads anything for one out of bounds, so here that is an error."""
    positions = indices.long()
    if wrap:
        positions = torch.where(positions < 0, positions + size, positions)
    if positions.numel() and (int(positions.min()) < 0 or int(positions.max()) >= size):
        raise IndexError(f"index {indices.reshape(-1).tolist()[:8]} is out of bounds for size {size}")
    return positions


@rule("split", moves=True)
def split(x: Tensor, axis: int, num_splits: int | None = None, split_sizes: list[int] | None = None) -> list[Tensor]:
    """Pieces of `x` along `axis`, of given sizes or `num_splits` equal ones."""
    if split_sizes is None and not num_splits:
        raise ValueError("neither split_sizes nor num_splits is given")
    return list(torch.split(x, split_sizes or x.shape[axis] // (num_splits or 1), axis))


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
