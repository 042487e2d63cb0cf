"""Elementwise ops and activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

SLOPES = np.array([0.25, 0.5, 1.5], np.float32)


def unary(op_type: str, argument: str, expect: Callable[..., Any]) -> Any:
    return (
        op_type,
        lambda mb, t: getattr(mb, op_type)(x=getattr(t, argument)),
        lambda t: expect(getattr(t, argument)),
    )


def binary(op_type: str, second: str, expect: Callable[..., Any]) -> Any:
    return (
        op_type,
        lambda mb, t: getattr(mb, op_type)(x=t.x, y=getattr(t, second)),
        lambda t: expect(t.x, getattr(t, second)),
    )


def comparison(op_type: str, expect: Callable[..., Any]) -> Any:
    """Cast to int32: Core ML has no boolean outputs."""
    return (
        op_type,
        lambda mb, t: mb.cast(x=getattr(mb, op_type)(x=t.x, y=t.y), dtype="int32"),
        lambda t: torch.from_numpy(expect(t.x.numpy(), t.y.numpy()).astype(np.int32)),
    )


def logic(op_type: str, expect: Callable[..., Any]) -> Any:
    return (
        op_type,
        lambda mb, t: mb.cast(
            x=getattr(mb, op_type)(x=mb.greater(x=t.x, y=0.0), y=mb.greater(x=t.y, y=0.0)), dtype="int32"
        ),
        lambda t: expect(t.x > 0, t.y > 0).int(),
    )


def phi(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def leak(x: torch.Tensor, slope: Any) -> torch.Tensor:
    return torch.where(x > 0, x, slope * x)


CASES = [
    unary("abs", "x", torch.abs),
    unary("acos", "u", torch.acos),
    unary("asin", "u", torch.asin),
    unary("atan", "x", torch.atan),
    unary("atanh", "u", torch.atanh),
    unary("ceil", "x", torch.ceil),
    unary("cos", "x", torch.cos),
    unary("cosh", "x", torch.cosh),
    unary("erf", "x", torch.erf),
    unary("exp", "x", torch.exp),
    unary("exp2", "x", lambda x: 2**x),
    unary("floor", "x", torch.floor),
    unary("round", "x", lambda x: torch.from_numpy(np.round(x.numpy()))),
    unary("sign", "x", torch.sign),
    unary("sin", "x", torch.sin),
    unary("sinh", "x", torch.sinh),
    unary("sqrt", "p", torch.sqrt),
    unary("square", "x", lambda x: x * x),
    unary("tan", "u", torch.tan),
    unary("tanh", "x", torch.tanh),
    unary("sigmoid", "x", lambda x: 1 / (1 + torch.exp(-x))),
    unary("silu", "x", lambda x: x / (1 + torch.exp(-x))),
    unary("relu", "x", lambda x: x.clamp(min=0)),
    unary("relu6", "x", lambda x: x.clamp(0, 6)),
    unary("softplus", "x", lambda x: torch.log1p(torch.exp(x))),
    unary("softsign", "x", lambda x: x / (1 + x.abs())),
    binary("add", "y", lambda x, y: x + y),
    binary("sub", "y", lambda x, y: x - y),
    binary("mul", "y", lambda x, y: x * y),
    binary("real_div", "p", lambda x, y: x / y),
    binary("floor_div", "p", lambda x, y: torch.floor(x / y)),
    binary("mod", "p", lambda x, y: torch.from_numpy(np.mod(x.numpy(), y.numpy()))),
    binary("maximum", "y", torch.maximum),
    binary("minimum", "y", torch.minimum),
    comparison("equal", np.equal),
    comparison("not_equal", np.not_equal),
    comparison("less", np.less),
    comparison("less_equal", np.less_equal),
    comparison("greater", np.greater),
    comparison("greater_equal", np.greater_equal),
    logic("logical_and", torch.logical_and),
    logic("logical_or", torch.logical_or),
    logic("logical_xor", torch.logical_xor),
    (
        "logical_not",
        lambda mb, t: mb.cast(x=mb.logical_not(x=mb.less(x=t.x, y=1.0)), dtype="int32"),
        lambda t: (t.x >= 1).int(),
    ),
    ("add", lambda mb, t: mb.add(x=t.i, y=t.j), lambda t: t.i + t.j),
    ("floor_div", lambda mb, t: mb.floor_div(x=t.j, y=3), lambda t: torch.floor(t.j / 3).int()),
    ("mod", lambda mb, t: mb.mod(x=t.j, y=4), lambda t: torch.from_numpy(t.j.numpy() % 4)),
    ("pow", lambda mb, t: mb.pow(x=t.p, y=2.5), lambda t: t.p**2.5),
    ("inverse", lambda mb, t: mb.inverse(x=t.p, epsilon=0.25), lambda t: 1 / (t.p + 0.25)),
    ("log", lambda mb, t: mb.log(x=t.p, epsilon=0.25), lambda t: torch.log(t.p + 0.25)),
    ("rsqrt", lambda mb, t: mb.rsqrt(x=t.p, epsilon=0.25), lambda t: (t.p + 0.25) ** -0.5),
    ("clip", lambda mb, t: mb.clip(x=t.x, alpha=-1.5, beta=2.25), lambda t: t.x.clamp(-1.5, 2.25)),
    ("threshold", lambda mb, t: mb.threshold(x=t.x, alpha=0.5), lambda t: t.x.clamp(min=0.5)),
    ("cast", lambda mb, t: mb.cast(x=t.x, dtype="int32"), lambda t: torch.trunc(t.x).int()),
    (
        "select",
        lambda mb, t: mb.select(cond=mb.less(x=t.x, y=t.y), a=t.p, b=t.u),
        lambda t: torch.where(t.x < t.y, t.p, t.u),
    ),
    ("gelu", lambda mb, t: mb.gelu(x=t.x, mode="EXACT"), lambda t: t.x * phi(t.x)),
    (
        "gelu",
        lambda mb, t: mb.gelu(x=t.x, mode="TANH_APPROXIMATION"),
        lambda t: 0.5 * t.x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (t.x + 0.044715 * t.x**3))),
    ),
    (
        "gelu",
        lambda mb, t: mb.gelu(x=t.x, mode="SIGMOID_APPROXIMATION"),
        lambda t: t.x / (1 + torch.exp(-1.702 * t.x)),
    ),
    (
        "softmax",
        lambda mb, t: mb.softmax(x=t.x, axis=-2),
        lambda t: t.x.exp() / t.x.exp().sum(-2, keepdim=True),
    ),
    ("leaky_relu", lambda mb, t: mb.leaky_relu(x=t.x, alpha=0.25), lambda t: leak(t.x, 0.25)),
    (
        "elu",
        lambda mb, t: mb.elu(x=t.x, alpha=0.5),
        lambda t: torch.where(t.x > 0, t.x, 0.5 * torch.expm1(t.x)),
    ),
    (
        "prelu",
        lambda mb, t: mb.prelu(x=t.x, alpha=SLOPES),
        lambda t: leak(t.x, torch.from_numpy(SLOPES)[:, None, None]),
    ),
    (
        "linear_activation",
        lambda mb, t: mb.linear_activation(x=t.x, alpha=0.5, beta=2.0),
        lambda t: 0.5 * t.x + 2,
    ),
    (
        "scaled_tanh",
        lambda mb, t: mb.scaled_tanh(x=t.x, alpha=1.5, beta=0.5),
        lambda t: 1.5 * torch.tanh(0.5 * t.x),
    ),
    (
        "sigmoid_hard",
        lambda mb, t: mb.sigmoid_hard(x=t.x, alpha=0.25, beta=0.5),
        lambda t: (0.25 * t.x + 0.5).clamp(0, 1),
    ),
    (
        "clamped_relu",
        lambda mb, t: mb.clamped_relu(x=t.x, alpha=0.25, beta=2.0),
        lambda t: leak(t.x, 0.25).clamp(max=2),
    ),
    ("thresholded_relu", lambda mb, t: mb.thresholded_relu(x=t.x, alpha=1.0), lambda t: t.x * (t.x >= 1)),
]


@pytest.mark.parametrize("precision", ["FLOAT32", "FLOAT16"])
@pytest.mark.parametrize("index", range(len(CASES)), ids=[f"{n}-{one[0]}" for n, one in enumerate(CASES)])
def test_op_equals_its_formula(index: int, precision: str, check_op: Callable[..., None]) -> None:
    check_op(CASES, index, precision)
