"""Tensors made from shapes and scalars."""

from __future__ import annotations

import torch
from torch import Tensor

from kind_runtimes.coreml.ops.registry import rule


@rule("shape")
def shape(x: Tensor) -> Tensor:
    """The sizes of x."""
    return torch.tensor(x.shape, dtype=torch.int32)


@rule("fill")
def fill(shape: list[int], value: Tensor) -> Tensor:
    """A tensor of `shape`, all `value`."""
    return value.reshape([1] * len(shape)).expand(shape)


@rule("fill_like")
def fill_like(ref_tensor: Tensor, value: Tensor) -> Tensor:
    """A tensor of the shape of `ref_tensor`, all `value`."""
    return value.reshape([1] * ref_tensor.dim()).expand(ref_tensor.shape)


@rule("range_1d")
def range_1d(start: Tensor, end: Tensor, step: Tensor) -> Tensor:
    """start, start + step, ... below `end`."""
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


@rule("one_hot")
def one_hot(indices: Tensor, one_hot_vector_size: int, axis: int, on_value: Tensor, off_value: Tensor) -> Tensor:
    """`on_value` where a new axis counts to the index, else `off_value`."""
    axis = axis % (indices.dim() + 1)
    positions = torch.arange(one_hot_vector_size).reshape(-1, *[1] * (indices.dim() - axis))
    return torch.where(indices.unsqueeze(axis) == positions, on_value, off_value)
