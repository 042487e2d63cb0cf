"""Pooling of one to three spatial axes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from kind_runtimes.coreml.ops.convolution import flatten_padding, solve_padding
from kind_runtimes.coreml.ops.registry import rule

_AVERAGE: dict[int, Callable[..., Tensor]] = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}
_MAX: dict[int, Callable[..., Tensor]] = {
    1: functional.max_pool1d,
    2: functional.max_pool2d,
    3: functional.max_pool3d,
}


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
    function = _AVERAGE[x.dim() - 2]
    if all(before == after for before, after in padding):
        symmetric = [before for before, _ in padding]
        return function(x, kernel_sizes, strides, symmetric, ceil_mode, not exclude_padding_from_average)
    pooled = function(functional.pad(x, flatten_padding(padding)), kernel_sizes, strides)
    if not exclude_padding_from_average:
        return pooled
    ones = torch.ones(1, 1, *x.shape[2:])
    return pooled / function(functional.pad(ones, flatten_padding(padding)), kernel_sizes, strides)


@rule("max_pool")
def max_pool(
    x: Tensor, kernel_sizes: list[int], strides: list[int], pad_type: str, pad: list[int], ceil_mode: bool
) -> Tensor:
    """The largest value of each window; padding never wins."""
    padding = solve_padding(pad_type, pad, x.shape[2:], kernel_sizes, strides)
    function = _MAX[x.dim() - 2]
    if all(before == after for before, after in padding):
        symmetric = [before for before, _ in padding]
        return function(x, kernel_sizes, strides, symmetric, ceil_mode=ceil_mode)
    return function(functional.pad(x, flatten_padding(padding), value=-math.inf), kernel_sizes, strides)
