"""Convolutions and pooling of one to three spatial axes, and the padding that they share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from kind_runtimes.coreml.ops.registry import rule


def _by_axes(name: str, x: Tensor) -> Callable[..., Tensor]:
    """torch's function for as many spatial axes as `x` (n, channels, *sizes) has; an AttributeError beyond three."""
    function: Callable[..., Tensor] = getattr(functional, f"{name}{x.dim() - 2}d")
    return function


def solve_padding(
    pad_type: str, pad: Sequence[int], sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """Elements before and after each spatial axis. `kernel` is the dilated one; `same` pads to ceil(size / stride)."""
    if pad_type == "valid":
        return [(0, 0)] * len(sizes)
    if pad_type == "custom":
        return [(pad[2 * axis], pad[2 * axis + 1]) for axis in range(len(sizes))]
    if pad_type not in ("same", "same_lower"):
        raise ValueError(f"unknown pad_type {pad_type!r}")
    totals = [
        max(0, -(-size // stride) * stride - size + width - stride)
        for size, width, stride in zip(sizes, kernel, strides, strict=True)
    ]
    return [_halve(total, lower=pad_type == "same_lower") for total in totals]


def flatten_padding(padding: Sequence[tuple[int, int]]) -> list[int]:
    """`padding` in the order of torch's `pad`: last axis first."""
    return [amount for pair in reversed(padding) for amount in pair]


def _split_padding(x: Tensor, padding: list[tuple[int, int]], value: float = 0.0) -> tuple[Tensor, list[int]]:
    """What torch's functions pad themselves, the same on both sides; of any other padding `x` padded here, and none."""
    if all(before == after for before, after in padding):
        return x, [before for before, _ in padding]
    return functional.pad(x, flatten_padding(padding), value=value), [0] * len(padding)


@rule("conv")
def conv(
    x: Tensor,
    weight: Tensor,
    strides: list[int],
    pad_type: str,
    pad: list[int],
    dilations: list[int],
    groups: int,
    bias: Tensor | None = None,
) -> Tensor:
    """x (n, in, *sizes) with weight (out, in / groups, *kernel)."""
    kernel = [(width - 1) * dilation + 1 for width, dilation in zip(weight.shape[2:], dilations, strict=True)]
    padded, padding = _split_padding(x, solve_padding(pad_type, pad, x.shape[2:], kernel, strides))
    return _by_axes("conv", x)(padded, weight, bias, strides, padding, dilations, groups)


@rule("conv_transpose")
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    strides: list[int],
    pad_type: str,
    pad: list[int],
    dilations: list[int],
    groups: int,
    bias: Tensor | None = None,
    output_shape: list[int] | None = None,
) -> Tensor:
    """The unpadded transposed convolution, cropped by the padding; weight (in, out / groups, *kernel)."""
    full = _by_axes("conv_transpose", x)(x, weight, stride=strides, groups=groups, dilation=dilations)
    sizes = full.shape[2:]
    crops = _solve_crops(pad_type, pad, sizes, x.shape[2:], strides)
    # Negative padding crops; positive padding adds the rows that no kernel reaches.
    padding = [(-before, -after) for before, after in crops]
    if output_shape:
        wanted = zip(crops, output_shape[2:], sizes, strict=True)
        padding = [(-before, before + size - length) for (before, _), size, length in wanted]
    cropped = functional.pad(full, flatten_padding(padding))
    return cropped if bias is None else cropped + bias.reshape(-1, *[1] * (x.dim() - 2))


def _solve_crops(
    pad_type: str, pad: Sequence[int], full: Sequence[int], sizes: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """What is cut before and after each axis of the full result; `same` leaves size * stride."""
    if pad_type != "same":
        return solve_padding(pad_type, pad, full, full, strides)
    totals = [length - size * stride for length, size, stride in zip(full, sizes, strides, strict=True)]
    return [_halve(total, lower=False) if total > 0 else (0, total) for total in totals]


def _halve(total: int, *, lower: bool) -> tuple[int, int]:
    """An odd element goes after, or before if `lower`."""
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)


@rule("avg_pool")
def avg_pool(
    x: Tensor,
    kernel_sizes: list[int],
    strides: list[int],
    pad_type: str,
    pad: list[int],
    ceil_mode: bool,
    exclude_padding_from_average: bool,
) -> Tensor:
    """Means of windows; padding counts as zeros, or not at all if excluded."""
    padding = solve_padding(pad_type, pad, x.shape[2:], kernel_sizes, strides)
    pool = _by_axes("avg_pool", x)
    padded, symmetric = _split_padding(x, padding)
    if padded is x:
        return pool(x, kernel_sizes, strides, symmetric, ceil_mode, not exclude_padding_from_average)
    pooled = pool(padded, kernel_sizes, strides)
    if not exclude_padding_from_average:
        return pooled
    ones, _ = _split_padding(torch.ones(1, 1, *x.shape[2:]), padding)
    return pooled / pool(ones, kernel_sizes, strides)


@rule("max_pool")
def max_pool(
    x: Tensor, kernel_sizes: list[int], strides: list[int], pad_type: str, pad: list[int], ceil_mode: bool
) -> Tensor:
    """The largest value of each window; padding never wins."""
    padding = solve_padding(pad_type, pad, x.shape[2:], kernel_sizes, strides)
    padded, symmetric = _split_padding(x, padding, -math.inf)
    return _by_axes("max_pool", x)(padded, kernel_sizes, strides, symmetric, ceil_mode=ceil_mode and padded is x)
