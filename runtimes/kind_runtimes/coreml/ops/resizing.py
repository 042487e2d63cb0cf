"""Resampling of the last axes, linear and nearest.

A sampling mode says where on the input grid each output element lies; see `resize_bilinear` in coremltools.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from kind_runtimes.coreml.ops.registry import rule


def solve_grid(mode: str, size_in: int, size_out: int) -> Tensor:
    """Positions on the input axis, (size_out,), within [0, size_in - 1]."""
    steps = torch.arange(size_out, dtype=torch.float64)
    if mode == "ALIGN_CORNERS" and size_out == 1:
        grid = torch.full((1,), (size_in - 1) / 2, dtype=torch.float64)
    elif mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        grid = steps * ((size_in - 1) / max(size_out - 1, 1))
    elif mode == "DEFAULT":
        grid = steps * (size_in / size_out)
    elif mode == "OFFSET_CORNERS":
        grid = (steps + 0.5) * (max(1, size_in - 1) / size_out)
    elif mode == "UNALIGN_CORNERS":
        grid = (steps + 0.5) * (size_in / size_out) - 0.5
    else:
        raise ValueError(f"unknown sampling_mode {mode!r}")
    return grid.clamp(0, size_in - 1)


def resize_linear(x: Tensor, axis: int, size: int, mode: str) -> Tensor:
    """x with `axis` resampled to `size` by linear interpolation."""
    if mode == "UNALIGN_CORNERS" and size == x.shape[axis]:
        return x
    grid = solve_grid(mode, x.shape[axis], size)
    lower = grid.floor().long()
    upper = (lower + 1).clamp(max=x.shape[axis] - 1)
    fraction = (grid - lower).to(x.dtype).reshape(-1, *[1] * (-1 - axis))
    return torch.lerp(x.index_select(axis, lower), x.index_select(axis, upper), fraction)


def resize_nearest(x: Tensor, axis: int, size: int, mode: str = "DEFAULT") -> Tensor:
    """x with `axis` resampled to `size`: element i takes floor(i * in / out), as torch's and TensorFlow's."""
    if mode != "DEFAULT":
        raise ValueError(f"how nearest neighbours round under sampling_mode {mode!r} is not documented")
    indices = (torch.arange(size) * x.shape[axis]) // size
    return x.index_select(axis, indices)


def _scale_size(size: int, factor: float) -> int:
    """floor(size * factor) in fp32, where the program's type inference works: in double 3 * 7/3 would give 6."""
    return math.floor(np.float32(size) * np.float32(factor))


@rule("upsample_nearest_neighbor")
def upsample_nearest_neighbor(x: Tensor, scale_factor_height: float, scale_factor_width: float) -> Tensor:
    """Nearest neighbours, sizes multiplied by the factors."""
    rows = resize_nearest(x, -2, _scale_size(x.shape[-2], scale_factor_height))
    return resize_nearest(rows, -1, _scale_size(x.shape[-1], scale_factor_width))


@rule("resize_nearest_neighbor")
def resize_nearest_neighbor(x: Tensor, target_size_height: int, target_size_width: int) -> Tensor:
    """Nearest neighbours, to the given sizes."""
    return resize_nearest(resize_nearest(x, -2, target_size_height), -1, target_size_width)


@rule("upsample_bilinear")
def upsample_bilinear(
    x: Tensor,
    scale_factor_height: float,
    scale_factor_width: float,
    align_corners: bool,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """Linear interpolation, sizes multiplied by the factors; half pixel centres unless corners are aligned."""
    halves = (not align_corners) if half_pixel_centers is None else half_pixel_centers
    if align_corners and halves:
        raise ValueError("align_corners excludes half_pixel_centers")
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if halves else "DEFAULT"
    rows = resize_linear(x, -2, _scale_size(x.shape[-2], scale_factor_height), mode)
    return resize_linear(rows, -1, _scale_size(x.shape[-1], scale_factor_width), mode)


@rule("resize_bilinear")
def resize_bilinear(x: Tensor, target_size_height: int, target_size_width: int, sampling_mode: str) -> Tensor:
    """Linear interpolation, to the given sizes."""
    rows = resize_linear(x, -2, target_size_height, sampling_mode)
    return resize_linear(rows, -1, target_size_width, sampling_mode)


@rule("resize")
def resize(x: Tensor, shape: list[int], resized_dims: int, interpolation_mode: str, sampling_mode: str) -> Tensor:
    """The last `resized_dims` axes to the last sizes of `shape`, where 0 keeps a size."""
    function = resize_linear if interpolation_mode == "LINEAR" else resize_nearest
    for axis, size in enumerate(shape[len(shape) - resized_dims :], start=-resized_dims):
        if size not in (0, x.shape[axis]):
            x = function(x, axis, size, sampling_mode)
    return x
