"""Changes of shape and order that compute nothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kind_runtimes.coreml.ops.convolution import flatten_padding
from kind_runtimes.coreml.ops.registry import rule


@rule("reshape", moves=True)
def reshape(x: Tensor, shape: list[int]) -> Tensor:
    """x as `shape`: -1 is what remains, 0 the size of x counted from the right (1 beyond its rank)."""
    offset = x.dim() - len(shape)
    sizes = [
        size if size != 0 else (x.shape[axis + offset] if axis + offset >= 0 else 1) for axis, size in enumerate(shape)
    ]
    return x.reshape(sizes)


@rule("transpose", moves=True)
def transpose(x: Tensor, perm: list[int]) -> Tensor:
    """x with its axes in the order `perm`."""
    return x.permute(perm)


@rule("expand_dims", moves=True)
def expand_dims(x: Tensor, axes: list[int]) -> Tensor:
    """x with axes of size 1 inserted at `axes` of the result."""
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@rule("squeeze", moves=True)
def squeeze(x: Tensor, axes: list[int] | None = None) -> Tensor:
    """x without those of `axes` (all, if None) that have size 1."""
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


@rule("flatten2d", moves=True)
def flatten2d(x: Tensor, axis: int) -> Tensor:
    """x as a matrix: axes before `axis`, axes from it on."""
    return x.reshape(x.shape[:axis].numel(), -1)


@rule("tile", moves=True)
def tile(x: Tensor, reps: list[int]) -> Tensor:
    """x repeated `reps` times along each axis."""
    return x.repeat(reps)


@rule("reverse", moves=True)
def reverse(x: Tensor, axes: list[int] | None = None) -> Tensor:
    """x in reverse order along `axes` (all, if None)."""
    return x.flip(list(range(x.dim())) if axes is None else axes)


@rule("pad", moves=True)
def pad(x: Tensor, pad: list[int], mode: str, constant_val: float) -> Tensor:
    """x padded before and after each of its last axes: with a constant, its mirror image, or its edge."""
    padding = [(pad[index], pad[index + 1]) for index in range(0, len(pad), 2)]
    if mode == "constant":
        return functional.pad(x, flatten_padding(padding), value=constant_val)
    for axis, (before, after) in enumerate(padding, start=-len(padding)):
        positions = torch.arange(-before, x.shape[axis] + after)
        last = x.shape[axis] - 1
        if mode == "reflect":
            positions = last - (last - positions.abs()).abs()
        x = x.index_select(axis, positions.clamp(0, last))
    return x


@rule("sliding_windows", moves=True)
def sliding_windows(x: Tensor, axis: int, size: int, stride: int) -> Tensor:
    """All windows of `size` along `axis`, which stays before the new axis of the windows."""
    axis = axis % x.dim()
    return x.unfold(axis, size, stride).movedim(-1, axis + 1)


@rule("pixel_shuffle", moves=True)
def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    """(n, C f f, H, W) to (n, C, H f, W f), channels outermost in depth, as torch's."""
    return functional.pixel_shuffle(x, upscale_factor)


@rule("pixel_unshuffle", moves=True)
def pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    """The inverse of pixel_shuffle."""
    return functional.pixel_unshuffle(x, downscale_factor)


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
