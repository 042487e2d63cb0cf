"""Convolutions of one to three spatial axes, and the padding that they share with pooling."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from kind_runtimes.coreml.ops.registry import rule

_CONV: dict[int, Callable[..., Tensor]] = {
    1: functional.conv1d,
    2: functional.conv2d,
    3: functional.conv3d,
}
_CONV_TRANSPOSE: dict[int, Callable[..., Tensor]] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


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
    kernel = _dilate(weight.shape[2:], dilations)
    padding = solve_padding(pad_type, pad, x.shape[2:], kernel, strides)
    function = _CONV[x.dim() - 2]
    if all(before == after for before, after in padding):
        symmetric = [before for before, _ in padding]
        return function(x, weight, bias, strides, symmetric, dilations, groups)
    return function(functional.pad(x, flatten_padding(padding)), weight, bias, strides, 0, dilations, groups)


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
    full = _CONV_TRANSPOSE[x.dim() - 2](
        x, weight, stride=strides, groups=groups, dilation=dilations, padding=0, output_padding=0
    )
    crops = _solve_crops(pad_type, pad, full.shape[2:], x.shape[2:], strides)
    wanted = (
        output_shape[2:]
        if output_shape
        else [size - before - after for size, (before, after) in zip(full.shape[2:], crops, strict=True)]
    )
    # Negative padding crops; positive padding adds the rows that no kernel reaches.
    padding = [
        (-before, before + size - length)
        for (before, _), size, length in zip(crops, wanted, full.shape[2:], strict=True)
    ]
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


def _dilate(kernel: torch.Size, dilations: Sequence[int]) -> list[int]:
    return [(width - 1) * dilation + 1 for width, dilation in zip(kernel, dilations, strict=True)]


def _halve(total: int, *, lower: bool) -> tuple[int, int]:
    """An odd element goes after, or before if `lower`."""
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)
