"""Matrix products, attention and normalisations. Group norm has no op: converters write it with reshapes and these."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from kind_runtimes.coreml.ops.registry import rule


@rule("linear")
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., in) times weight (out, in) transposed, plus bias."""
    return functional.linear(x, weight, bias)


@rule("matmul")
def matmul(x: Tensor, y: Tensor, transpose_x: bool, transpose_y: bool) -> Tensor:
    """Batched product; the flags transpose the last two axes first."""
    left = x.transpose(-1, -2) if transpose_x and x.dim() > 1 else x
    right = y.transpose(-1, -2) if transpose_y and y.dim() > 1 else y
    return left @ right


@rule("einsum")
def einsum(values: list[Tensor], equation: str) -> Tensor:
    """Einstein summation of two tensors; axes of size 1 broadcast."""
    return torch.einsum(equation, *values)


@rule("scaled_dot_product_attention")
def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """softmax(query key^T / sqrt(E) + mask) value; a boolean mask keeps what is true."""
    scores = (query @ key.transpose(-1, -2)) / math.sqrt(query.shape[-1])
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return functional.softmax(scores, -1) @ value


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
    x: Tensor, mean: Tensor, variance: Tensor, epsilon: float, gamma: Tensor | None = None, beta: Tensor | None = None
) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) with stored statistics, one per channel (axis 1)."""
    return functional.batch_norm(x, mean, variance, gamma, beta, eps=epsilon)


@rule("l2_norm")
def l2_norm(x: Tensor, epsilon: float) -> Tensor:
    """x / sqrt(sum of squares over the last three axes + epsilon)."""
    return x * torch.rsqrt(x.square().sum((-3, -2, -1), keepdim=True) + epsilon)
