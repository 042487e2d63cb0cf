"""Convolutions, pooling and resampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional


def draw(*shape: int) -> np.ndarray:
    return (np.random.default_rng(2).integers(-16, 17, shape) / 16).astype(np.float32)


KERNEL, GROUPED, LONG = draw(4, 3, 3, 2), draw(6, 1, 3, 3), draw(3, 5, 4)  # (out, in / groups, *kernel)
DECONV = draw(3, 2, 3, 4)  # (in, out / groups, *kernel)
BIAS = draw(4)
torch_kernel, torch_grouped, torch_long, torch_deconv, torch_bias = map(
    torch.from_numpy, (KERNEL, GROUPED, LONG, DECONV, BIAS)
)


def pad_unevenly(x: torch.Tensor, value: float) -> torch.Tensor:
    """One row above, one column at the right: pad [1, 0, 0, 1]."""
    return functional.pad(x, (0, 1, 1, 0), value=value)


def windows(x: torch.Tensor) -> torch.Tensor:
    """All 3x3 windows at stride 2, (n, c, rows, columns, 9)."""
    return x.unfold(2, 3, 2).unfold(3, 3, 2).flatten(4)


def average_pool(mb: Any, t: Any, exclude: bool) -> Any:
    return mb.avg_pool(
        x=t.x,
        kernel_sizes=[3, 3],
        strides=[2, 2],
        pad_type="custom",
        pad=[1, 0, 0, 1],
        exclude_padding_from_average=exclude,
    )


def average_known(x: torch.Tensor) -> torch.Tensor:
    return torch.nanmean(windows(pad_unevenly(x, math.nan)), -1)


def double_by_halves(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Each element, then its mean with the right neighbour, the last one with itself."""
    right = torch.cat([x.narrow(axis, 1, x.shape[axis] - 1), x.narrow(axis, x.shape[axis] - 1, 1)], axis)
    return torch.stack([x, (x + right) / 2], axis + 1).flatten(axis, axis + 1)


def bilinear(x: torch.Tensor, size: tuple[int, int], align_corners: bool = False) -> torch.Tensor:
    return functional.interpolate(x, size, mode="bilinear", align_corners=align_corners)


CASES = [
    (
        "conv",
        lambda mb, t: mb.conv(x=t.x, weight=KERNEL, bias=BIAS, strides=[2, 1], pad_type="custom", pad=[1, 0, 2, 3]),
        lambda t: functional.conv2d(functional.pad(t.x, (2, 3, 1, 0)), torch_kernel, torch_bias, (2, 1)),
    ),
    (
        "conv",
        lambda mb, t: mb.conv(x=t.x, weight=GROUPED, groups=3, pad_type="same", dilations=[1, 2]),
        lambda t: functional.conv2d(t.x, torch_grouped, None, 1, (1, 2), (1, 2), 3),
    ),
    (  # Height 4, kernel 3, stride 2 pads one row, below; width 6, kernel 2, stride 2 pads nothing.
        "conv",
        lambda mb, t: mb.conv(x=t.x, weight=KERNEL, strides=[2, 2], pad_type="same"),
        lambda t: functional.conv2d(functional.pad(t.x, (0, 0, 0, 1)), torch_kernel, None, 2),
    ),
    (
        "conv",
        lambda mb, t: mb.conv(x=t.x, weight=KERNEL, strides=[2, 2], pad_type="same_lower"),
        lambda t: functional.conv2d(functional.pad(t.x, (0, 0, 1, 0)), torch_kernel, None, 2),
    ),
    (
        "conv",
        lambda mb, t: mb.conv(x=t.s, weight=LONG, pad_type="valid"),
        lambda t: functional.conv1d(t.s, torch_long),
    ),
    (
        "conv_transpose",
        lambda mb, t: mb.conv_transpose(
            x=t.x, weight=DECONV, bias=BIAS[:2], strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 1]
        ),
        lambda t: functional.conv_transpose2d(t.x, torch_deconv, torch_bias[:2], 2, 1),
    ),
    (
        "conv_transpose",
        lambda mb, t: mb.conv_transpose(x=t.x, weight=DECONV, groups=3, dilations=[2, 1], pad_type="valid"),
        lambda t: functional.conv_transpose2d(t.x, torch_deconv, None, 1, 0, 0, 3, (2, 1)),
    ),
    (  # Rows: 15 full, 16 wanted, an empty one below. Columns: 14 full, 12 wanted, one cut on each side.
        "conv_transpose",
        lambda mb, t: mb.conv_transpose(x=t.x, weight=DECONV, strides=[4, 2], pad_type="same"),
        lambda t: functional.pad(functional.conv_transpose2d(t.x, torch_deconv, None, (4, 2)), (-1, -1, 0, 1)),
    ),
    (
        "conv_transpose",
        lambda mb, t: mb.conv_transpose(
            x=t.x,
            weight=DECONV,
            strides=[2, 2],
            pad_type="custom",
            pad=[1, 1, 1, 1],
            output_shape=[2, 2, 8, 13],
        ),
        lambda t: functional.conv_transpose2d(t.x, torch_deconv, None, 2, 1, output_padding=1),
    ),
    (
        "avg_pool",
        lambda mb, t: average_pool(mb, t, exclude=False),
        lambda t: windows(pad_unevenly(t.x, 0)).mean(-1),
    ),
    ("avg_pool", lambda mb, t: average_pool(mb, t, exclude=True), lambda t: average_known(t.x)),
    (
        "avg_pool",
        lambda mb, t: mb.avg_pool(x=t.x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="valid", ceil_mode=True),
        lambda t: torch.nanmean(windows(functional.pad(t.x, (0, 1, 0, 1), value=math.nan)), -1),
    ),
    (
        "max_pool",
        lambda mb, t: mb.max_pool(x=t.x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=[1, 0, 0, 1]),
        lambda t: windows(pad_unevenly(t.x, -100)).amax(-1),
    ),
    (
        "max_pool",
        lambda mb, t: mb.max_pool(x=t.x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="same"),
        lambda t: windows(functional.pad(t.x, (0, 1, 0, 1), value=-100)).amax(-1),
    ),
    (
        "upsample_nearest_neighbor",
        lambda mb, t: mb.upsample_nearest_neighbor(x=t.x, scale_factor_height=2, scale_factor_width=3),
        lambda t: t.x.repeat_interleave(2, -2).repeat_interleave(3, -1),
    ),
    (
        "resize_nearest_neighbor",
        lambda mb, t: mb.resize_nearest_neighbor(x=t.x, target_size_height=6, target_size_width=4),
        lambda t: t.x[:, :, [0, 0, 1, 2, 2, 3]][..., [0, 1, 3, 4]],
    ),
    (
        "upsample_bilinear",
        lambda mb, t: mb.upsample_bilinear(x=t.x, scale_factor_height=2.0, scale_factor_width=1.5, align_corners=True),
        lambda t: bilinear(t.x, (8, 9), align_corners=True),
    ),
    (
        "upsample_bilinear",
        lambda mb, t: mb.upsample_bilinear(x=t.x, scale_factor_height=2.0, scale_factor_width=1.5, align_corners=False),
        lambda t: bilinear(t.x, (8, 9)),
    ),
    (
        "resize_bilinear",
        lambda mb, t: mb.resize_bilinear(
            x=t.x, target_size_height=8, target_size_width=3, sampling_mode="UNALIGN_CORNERS"
        ),
        lambda t: bilinear(t.x, (8, 3)),
    ),
    (
        "resize_bilinear",
        lambda mb, t: mb.resize_bilinear(x=t.x, target_size_height=8, target_size_width=12, sampling_mode="DEFAULT"),
        lambda t: double_by_halves(double_by_halves(t.x, 2), 3),
    ),
    (
        "resize",
        lambda mb, t: mb.resize(x=t.x, shape=[8, 0], resized_dims=np.uint32(2), sampling_mode="STRICT_ALIGN_CORNERS"),
        lambda t: bilinear(t.x, (8, 6), align_corners=True),
    ),
]


@pytest.mark.parametrize("precision", ["FLOAT32", "FLOAT16"])
@pytest.mark.parametrize("index", range(len(CASES)), ids=[f"{n}-{one[0]}" for n, one in enumerate(CASES)])
def test_op_equals_its_formula(index: int, precision: str, check_op: Callable[..., None]) -> None:
    check_op(CASES, index, precision)
