"""Elementwise arithmetic, activations, comparison, logic and conversion of types."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kind_runtimes.coreml.ops.registry import TORCH_DTYPES, RuleFunction, add_formulas, rule

# torch calls these as MIL does.
_UNARY = """
    abs acos asin atan atanh ceil cos cosh erf exp exp2 floor logical_not round sigmoid sign sin sinh sqrt square
    tan tanh
"""
_BINARY = """
    add greater greater_equal less less_equal logical_and logical_or logical_xor maximum minimum mul not_equal pow sub
"""
_GELUS: dict[str, RuleFunction] = {
    "EXACT": functional.gelu,
    "TANH_APPROXIMATION": lambda x: functional.gelu(x, approximate="tanh"),
    "SIGMOID_APPROXIMATION": lambda x: x * torch.sigmoid(1.702 * x),
}


def _unary(function: RuleFunction) -> RuleFunction:
    return lambda x: function(x)


def _binary(function: RuleFunction) -> RuleFunction:
    return lambda x, y: function(x, y)


add_formulas({name: _unary(getattr(torch, name)) for name in _UNARY.split()})
add_formulas({name: _binary(getattr(torch, name)) for name in _BINARY.split()})
add_formulas(
    {
        "clamped_relu": lambda x, alpha, beta: functional.leaky_relu(x, alpha).clamp(max=beta),
        "clip": lambda x, alpha, beta: x.clamp(alpha, beta),
        "elu": lambda x, alpha: functional.elu(x, alpha),
        "equal": lambda x, y: torch.eq(x, y),
        "floor_div": lambda x, y: torch.floor_divide(x, y),
        "gelu": lambda x, mode: _GELUS[mode](x),
        "identity": lambda x: x,
        "inverse": lambda x, epsilon: torch.reciprocal(x + epsilon),
        "leaky_relu": lambda x, alpha: functional.leaky_relu(x, alpha),
        "linear_activation": lambda x, alpha, beta: alpha * x + beta,
        "log": lambda x, epsilon: torch.log(x + epsilon),
        "mod": lambda x, y: torch.remainder(x, y),  # the sign of the divisor, as numpy's
        "relu": lambda x: functional.relu(x),
        "relu6": lambda x: functional.relu6(x),
        "rsqrt": lambda x, epsilon: torch.rsqrt(x + epsilon),
        "scaled_tanh": lambda x, alpha, beta: alpha * torch.tanh(beta * x),
        "sigmoid_hard": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
        "silu": lambda x: functional.silu(x),
        "softmax": lambda x, axis: functional.softmax(x, axis),
        "softplus": lambda x: functional.softplus(x),
        "softsign": lambda x: functional.softsign(x),
        "threshold": lambda x, alpha: x.clamp(min=alpha),
        "thresholded_relu": lambda x, alpha: torch.where(x >= alpha, x, torch.zeros_like(x)),
    }
)


@rule("prelu")
def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    """x where x > 0, else alpha * x with one alpha per channel (axis 1)."""
    return functional.prelu(x, alpha)


@rule("real_div")
def real_div(x: Tensor, y: Tensor) -> Tensor:
    """x / y of floats. What it gives for integers is not documented, and converters cast them to float first."""
    if not (x.is_floating_point() and y.is_floating_point()):
        raise ValueError("the quotient of two integers is not defined")
    return x / y


@rule("select")
def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a where cond, else b."""
    return torch.where(cond.bool(), a, b)


@rule("cast")
def cast(x: Tensor, dtype: str) -> Tensor:
    """x as `dtype`; floats are cut towards zero to integers."""
    if dtype not in TORCH_DTYPES:
        raise ValueError(f"no conversion to {dtype}")
    held = x.to(TORCH_DTYPES[dtype])
    return held & 0xFFFF if dtype == "uint16" else held
