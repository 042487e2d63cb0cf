"""Elementwise arithmetic, comparison, logic and type conversion."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kind_runtimes.coreml.ops.registry import RuleFunction, rule

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "floor": torch.floor,
    "logical_not": torch.logical_not,
    "round": torch.round,
    "sign": torch.sign,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
    "tanh": torch.tanh,
}
_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "equal": torch.eq,
    "floor_div": torch.floor_divide,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "mod": torch.remainder,  # the sign of the divisor, as numpy's
    "mul": torch.mul,
    "not_equal": torch.ne,
    "pow": torch.pow,
    "sub": torch.sub,
}
_CASTS = {
    "bool": torch.bool,
    "fp16": torch.float32,  # rounded by the evaluator, as every fp16 result
    "fp32": torch.float32,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "uint8": torch.uint8,
}


def _make_unary(function: Callable[[Tensor], Tensor]) -> RuleFunction:
    def apply(x: Tensor) -> Tensor:
        return function(x)

    return apply


def _make_binary(function: Callable[[Tensor, Tensor], Tensor]) -> RuleFunction:
    def apply(x: Tensor, y: Tensor) -> Tensor:
        return function(x, y)

    return apply


for _op_type, _unary in _UNARY.items():
    rule(_op_type)(_make_unary(_unary))
for _op_type, _binary in _BINARY.items():
    rule(_op_type)(_make_binary(_binary))


@rule("real_div")
def real_div(x: Tensor, y: Tensor) -> Tensor:
    """x / y of floats. What it gives for integers is not documented, and converters cast them to float first."""
    if not (x.is_floating_point() and y.is_floating_point()):
        raise ValueError("the quotient of two integers is not defined")
    return x / y


@rule("inverse")
def inverse(x: Tensor, epsilon: float) -> Tensor:
    """1 / (x + epsilon)."""
    return torch.reciprocal(x + epsilon)


@rule("log")
def log(x: Tensor, epsilon: float) -> Tensor:
    """log(x + epsilon)."""
    return torch.log(x + epsilon)


@rule("rsqrt")
def rsqrt(x: Tensor, epsilon: float) -> Tensor:
    """1 / sqrt(x + epsilon)."""
    return torch.rsqrt(x + epsilon)


@rule("clip")
def clip(x: Tensor, alpha: float, beta: float) -> Tensor:
    """x limited to [alpha, beta]."""
    return torch.clamp(x, alpha, beta)


@rule("threshold")
def threshold(x: Tensor, alpha: float) -> Tensor:
    """max(x, alpha)."""
    return torch.clamp(x, min=alpha)


@rule("select")
def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a where cond, else b."""
    return torch.where(cond.bool(), a, b)


@rule("cast")
def cast(x: Tensor, dtype: str) -> Tensor:
    """x as `dtype`; floats are cut towards zero to integers."""
    if dtype == "uint16":  # torch computes little in uint16: such values are kept in int32
        return x.to(torch.int32) & 0xFFFF
    if dtype not in _CASTS:
        raise ValueError(f"no conversion to {dtype}")
    return x.to(_CASTS[dtype])


@rule("identity")
def identity(x: Tensor) -> Tensor:
    """x."""
    return x
