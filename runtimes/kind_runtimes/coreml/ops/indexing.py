"""Gathers. From iOS 17 on (where `validate_indices` exists) a negative index is out of bounds; before, it wraps."""

from __future__ import annotations

import torch
from torch import Tensor

from kind_runtimes.coreml.ops.registry import rule


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
    coordinates = [
        _check_indices(column, size, wrap=wrap) for column, size in zip(indices.unbind(-1), x.shape, strict=False)
    ]
    return x[tuple(coordinates)]


def _check_indices(indices: Tensor, size: int, *, wrap: bool) -> Tensor:
    """Indices as int64. A device reads anything for one out of bounds, so here that is an error."""
    positions = indices.long()
    if wrap:
        positions = torch.where(positions < 0, positions + size, positions)
    if positions.numel() and (int(positions.min()) < 0 or int(positions.max()) >= size):
        raise IndexError(f"index {indices.reshape(-1).tolist()[:8]} is out of bounds for size {size}")
    return positions
