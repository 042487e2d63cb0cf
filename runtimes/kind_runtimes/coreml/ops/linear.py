"""Matrix products and attention."""

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
