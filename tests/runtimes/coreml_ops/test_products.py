"""Matrix products, attention, normalisations and reductions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

RANDOM = np.random.default_rng(1)
WEIGHT = (RANDOM.integers(-16, 17, (7, 8)) / 16).astype(np.float32)
BIAS = (RANDOM.integers(-16, 17, 7) / 16).astype(np.float32)
CHANNELS = (RANDOM.integers(1, 17, (4, 3)) / 16).astype(np.float32)  # vectors with one value per channel
MASK = (RANDOM.integers(-32, 33, (2, 5, 5)) / 8).astype(np.float32)
KEEP = MASK > -2.5


def attend(t: Any, mask: np.ndarray) -> torch.Tensor:
    scores = torch.einsum("bti,bui->btu", t.s, t.r) / math.sqrt(8) + torch.from_numpy(mask)
    return torch.einsum("btu,bui->bti", torch.softmax(scores, -1), t.s)


def normalize(x: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True) + 0.25).sqrt()


def channel(index: int) -> torch.Tensor:
    return torch.from_numpy(CHANNELS[index])[:, None, None]


def reduction(op_type: str, axes: tuple[int, ...], keep: bool, expect: Callable[..., Any]) -> Any:
    return (
        op_type,
        lambda mb, t: getattr(mb, op_type)(x=t.p, axes=list(axes), keep_dims=keep),
        lambda t: torch.from_numpy(expect(t.p.numpy(), axis=axes, keepdims=keep)),
    )


CASES = [
    (
        "linear",
        lambda mb, t: mb.linear(x=t.s, weight=WEIGHT, bias=BIAS),
        lambda t: torch.einsum("bti,oi->bto", t.s, torch.from_numpy(WEIGHT)) + torch.from_numpy(BIAS),
    ),
    (
        "matmul",
        lambda mb, t: mb.matmul(x=t.s, y=t.r, transpose_y=True),
        lambda t: torch.einsum("bti,bui->btu", t.s, t.r),
    ),
    (
        "matmul",
        lambda mb, t: mb.matmul(x=t.s, y=t.r, transpose_x=True),
        lambda t: torch.einsum("bti,btj->bij", t.s, t.r),
    ),
    (
        "einsum",
        lambda mb, t: mb.einsum(values=(t.x, mb.transpose(x=t.y, perm=[0, 3, 2, 1])), equation="nchw,nwhu->nchu"),
        lambda t: (t.x.unsqueeze(2) * t.y.unsqueeze(1)).sum(-1).transpose(2, 3),
    ),
    (
        "layer_norm",
        lambda mb, t: mb.layer_norm(x=t.s, axes=[-1], epsilon=0.25),
        lambda t: normalize(t.s, (-1,)),
    ),
    (
        "layer_norm",
        lambda mb, t: mb.layer_norm(x=t.x, axes=[1], gamma=CHANNELS[0], beta=CHANNELS[1], epsilon=0.25),
        lambda t: normalize(t.x, (1,)) * channel(0) + channel(1),
    ),
    (
        "instance_norm",
        lambda mb, t: mb.instance_norm(x=t.x, gamma=CHANNELS[0], beta=CHANNELS[1], epsilon=0.25),
        lambda t: normalize(t.x, (2, 3)) * channel(0) + channel(1),
    ),
    (
        "batch_norm",
        lambda mb, t: mb.batch_norm(
            x=t.x,
            mean=CHANNELS[0],
            variance=CHANNELS[1],
            gamma=CHANNELS[2],
            beta=CHANNELS[3],
            epsilon=0.25,
        ),
        lambda t: (t.x - channel(0)) / (channel(1) + 0.25).sqrt() * channel(2) + channel(3),
    ),
    (
        "l2_norm",
        lambda mb, t: mb.l2_norm(x=t.x, epsilon=0.25),
        lambda t: t.x / (t.x.square().sum((1, 2, 3), keepdim=True) + 0.25).sqrt(),
    ),
    reduction("reduce_mean", (-1, 1), False, np.mean),
    reduction("reduce_sum", (2,), True, np.sum),
    reduction("reduce_max", (-1, 1), False, np.max),
    reduction("reduce_min", (2,), True, np.min),
    reduction("reduce_prod", (2,), False, np.prod),
    reduction("reduce_l1_norm", (1,), True, lambda x, **how: np.abs(x).sum(**how)),
    reduction("reduce_l2_norm", (-1, 1), False, lambda x, **how: np.sqrt((x**2).sum(**how))),
    reduction("reduce_log_sum", (-1, 1), True, lambda x, **how: np.log(x.sum(**how))),
    reduction("reduce_log_sum_exp", (2,), False, lambda x, **how: np.log(np.exp(x).sum(**how))),
    reduction("reduce_sum_square", (-1, 1), True, lambda x, **how: (x**2).sum(**how)),
    (
        "reduce_prod",
        lambda mb, t: mb.reduce_prod(x=t.j, axes=[0, 1], keep_dims=True),
        lambda t: t.j.prod()[None, None].int(),
    ),
    ("reduce_sum", lambda mb, t: mb.reduce_sum(x=t.j, axes=[1]), lambda t: t.j.sum(1).int()),
    ("reduce_sum", lambda mb, t: mb.reduce_sum(x=t.s, keep_dims=True), lambda t: t.s.sum().reshape(1, 1, 1)),
    ("reduce_argmax", lambda mb, t: mb.reduce_argmax(x=t.s, axis=-1), lambda t: torch.argmax(t.s, -1).int()),
    (
        "reduce_argmin",
        lambda mb, t: mb.reduce_argmin(x=t.s, axis=1, keep_dims=True),
        lambda t: torch.argmin(t.s, 1, keepdim=True).int(),
    ),
    (
        "cumsum",
        lambda mb, t: mb.cumsum(x=t.s, axis=1),
        lambda t: torch.stack([t.s[:, : end + 1].sum(1) for end in range(5)], 1),
    ),
    (
        "cumsum",
        lambda mb, t: mb.cumsum(x=t.s, axis=1, exclusive=True, reverse=True),
        lambda t: torch.stack([t.s[:, begin + 1 :].sum(1) for begin in range(5)], 1),
    ),
]
IOS18_CASES = [
    (
        "scaled_dot_product_attention",
        lambda mb, t: mb.scaled_dot_product_attention(query=t.s, key=t.r, value=t.s),
        lambda t: attend(t, np.zeros((5, 5), np.float32)),
    ),
    (
        "scaled_dot_product_attention",
        lambda mb, t: mb.scaled_dot_product_attention(query=t.s, key=t.r, value=t.s, attn_mask=MASK),
        lambda t: attend(t, MASK),
    ),
    (
        "scaled_dot_product_attention",
        lambda mb, t: mb.scaled_dot_product_attention(query=t.s, key=t.r, value=t.s, attn_mask=KEEP),
        lambda t: attend(t, np.where(KEEP, 0, -np.inf).astype(np.float32)),
    ),
]


@pytest.mark.parametrize("precision", ["FLOAT32", "FLOAT16"])
@pytest.mark.parametrize("index", range(len(CASES)), ids=[f"{n}-{one[0]}" for n, one in enumerate(CASES)])
def test_op_equals_its_formula(index: int, precision: str, check_op: Callable[..., None]) -> None:
    check_op(CASES, index, precision)


@pytest.mark.parametrize("precision", ["FLOAT32", "FLOAT16"])
@pytest.mark.parametrize("index", range(len(IOS18_CASES)), ids=["unmasked", "added mask", "boolean mask"])
def test_attention_equals_its_formula(index: int, precision: str, check_op: Callable[..., None]) -> None:
    check_op(IOS18_CASES, index, precision, "iOS18")
