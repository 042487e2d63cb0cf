"""Which rule evaluates which MIL op.

A rule is a function whose parameters carry the names of the op's inputs. Its annotations say what it gets:
a parameter with `Tensor` in its annotation gets torch tensors, any other one plain Python values (int, float,
bool, str or nested lists). Floats come as fp32 whatever the program's precision: the evaluator rounds results.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

RuleFunction = Callable[..., Tensor | Sequence[Tensor]]
_F = TypeVar("_F", bound=RuleFunction)
_OPERANDS = ("x", "y")  # of a formula, which has no annotations: what gets tensors
_RULES: dict[str, Rule] = {}
# In what values of MIL's types are held: uint16 and uint32 in wider types, because torch computes little in them.
TORCH_DTYPES = {
    "bool": torch.bool,
    "fp16": torch.float32,
    "fp32": torch.float32,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "uint8": torch.uint8,
    "uint16": torch.int32,
    "uint32": torch.int64,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """The function of an op type, the names of its parameters, and those among them that take tensors.

    `moves`: it only moves values that are rounded already, so its results need no rounding.
    """

    function: RuleFunction
    parameters: frozenset[str]
    tensor_parameters: frozenset[str]
    moves: bool


def rule(op_type: str, *, moves: bool = False) -> Callable[[_F], _F]:
    """Register the decorated function for `op_type`; a second rule for it is a ValueError."""

    def register(function: _F) -> _F:
        if op_type in _RULES:
            raise ValueError(f"two rules for {op_type}")
        parameters = inspect.signature(function).parameters
        tensors = {name for name, one in parameters.items() if "Tensor" in str(one.annotation) or name in _OPERANDS}
        _RULES[op_type] = Rule(function, frozenset(parameters), frozenset(tensors), moves)
        return function

    return register


def add_formulas(formulas: Mapping[str, RuleFunction], *, moves: bool = False) -> None:
    """Register formulas of one line by op type: of their parameters `x` and `y` get tensors."""
    for op_type, formula in formulas.items():
        rule(op_type, moves=moves)(formula)


def find_rule(op_type: str) -> Rule | None:
    """The rule of `op_type`, or None."""
    return _RULES.get(op_type)
