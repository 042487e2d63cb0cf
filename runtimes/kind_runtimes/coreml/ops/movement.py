"""Changes of shape and order that compute nothing, and tensors made from shapes and scalars."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kind_runtimes.coreml.ops.convolution import flatten_padding
from kind_runtimes.coreml.ops.registry import add_formulas, rule

# `axes` None means all; the depth of `pixel_shuffle` is (C, f, f), as torch's
add_formulas(
    {
        "flatten2d": lambda x, axis: x.reshape(x.shape[:axis].numel(), -1),
        "pixel_shuffle": lambda x, upscale_factor: functional.pixel_shuffle(x, upscale_factor),
        "pixel_unshuffle": lambda x, downscale_factor: functional.pixel_unshuffle(x, downscale_factor),
        "reverse": lambda x, axes=None: x.flip(list(range(x.dim())) if axes is None else axes),
        "squeeze": lambda x, axes=None: x.squeeze() if axes is None else x.squeeze(tuple(axes)),
        "tile": lambda x, reps: x.repeat(reps),
        "transpose": lambda x, perm: x.permute(perm),
    },
    moves=True,
)


@rule("reshape", moves=True)
def reshape(x: Tensor, shape: list[int]) -> Tensor:
    """x as `shape`: -1 is what remains, 0 the size of x counted from the right (1 beyond its rank)."""
    offset = x.dim() - len(shape)
    sizes = [
        size if size != 0 else (x.shape[axis + offset] if axis + offset >= 0 else 1) for axis, size in enumerate(shape)
    ]
    return x.reshape(sizes)


@rule("expand_dims", moves=True)
def expand_dims(x: Tensor, axes: list[int]) -> Tensor:
    """x with axes of size 1 inserted at `axes` of the result."""
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@rule("pad", moves=True)
def pad(x: Tensor, pad: list[int], mode: str, constant_val: float) -> Tensor:
    """x padded before and after each of its last axes: with a constant, its mirror image, or its edge."""
    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    if mode == "constant":
        return functional.pad(x, flatten_padding(pairs), value=constant_val)
    widths = [(0, 0)] * (x.dim() - len(pairs)) + pairs
    return torch.from_numpy(np.pad(x.numpy(), widths, "reflect" if mode == "reflect" else "edge"))


@rule("sliding_windows", moves=True)
def sliding_windows(x: Tensor, axis: int, size: int, stride: int) -> Tensor:
    """All windows of `size` along `axis`, which stays before the new axis of the windows."""
    axis = axis % x.dim()
    return x.unfold(axis, size, stride).movedim(-1, axis + 1)


@rule("depth_to_space", moves=True)
def depth_to_space(x: Tensor, block_size: int) -> Tensor:
    """(n, b b C, H, W) to (n, C, H b, W b), channels innermost in depth, as TensorFlow's."""
    count, depth, height, width = x.shape
    blocks = x.reshape(count, block_size, block_size, depth // block_size**2, height, width)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(count, -1, height * block_size, width * block_size)


@rule("space_to_depth", moves=True)
def space_to_depth(x: Tensor, block_size: int) -> Tensor:
    """The inverse of depth_to_space."""
    count, channels, height, width = x.shape
    rows, columns = height // block_size, width // block_size
    blocks = x.reshape(count, channels, rows, block_size, columns, block_size)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(count, -1, rows, columns)


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
    return fill(list(ref_tensor.shape), value)


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
