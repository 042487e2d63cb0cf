"""Normalisations. Group norm has no op of its own: converters write it with reshapes and these."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kind_runtimes.coreml.ops.registry import rule


@rule("layer_norm")
def layer_norm(
    x: Tensor, axes: list[int], epsilon: float, gamma: Tensor | None = None, beta: Tensor | None = None
) -> Tensor:
    """Zero mean and unit variance over `axes`, then scale and shift of the shape of those axes."""
    normalised = sorted(axis % x.dim() for axis in axes)
    sizes = [x.shape[axis] for axis in normalised]
    if normalised == list(range(x.dim() - len(normalised), x.dim())):
        return functional.layer_norm(x, sizes, gamma, beta, epsilon)
    variance, mean = torch.var_mean(x, normalised, correction=0, keepdim=True)
    result = (x - mean) * torch.rsqrt(variance + epsilon)
    shape = [size if axis in normalised else 1 for axis, size in enumerate(x.shape)]
    if gamma is not None:
        result = result * gamma.reshape(shape)
    return result if beta is None else result + beta.reshape(shape)


@rule("instance_norm")
def instance_norm(x: Tensor, epsilon: float, gamma: Tensor | None = None, beta: Tensor | None = None) -> Tensor:
    """Zero mean and unit variance of each channel (axis 1) of each sample."""
    return functional.instance_norm(x, weight=gamma, bias=beta, eps=epsilon)


@rule("batch_norm")
def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    epsilon: float,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) with stored statistics, one per channel (axis 1)."""
    return functional.batch_norm(x, mean, variance, gamma, beta, eps=epsilon)


@rule("l2_norm")
def l2_norm(x: Tensor, epsilon: float) -> Tensor:
    """x / sqrt(sum of squares over the last three axes + epsilon)."""
    return x * torch.rsqrt(x.square().sum((-3, -2, -1), keepdim=True) + epsilon)
