"""What LiteRT's GPU delegate does not take is named, by the rules that it publishes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kind_bench.counting.litert_gpu import Operand, find_obstacle


def floats(*shape: int, is_constant: bool = False) -> Operand:
    return Operand(shape=shape, kind="FLOAT32", is_constant=is_constant)


def integers(*shape: int, kind: str = "INT32", is_constant: bool = True) -> Operand:
    return Operand(shape=shape, kind=kind, is_constant=is_constant)


_X = floats(1, 4, 8)
_CASES: dict[str, tuple[str, Any, list[Operand], Operand, str]] = {
    "an index": ("GATHER_ND", None, [floats(4, 5, is_constant=True), integers(1, 1)], floats(1, 5), "no operator"),
    "64 bits": ("ADD", None, [integers(1, kind="INT64", is_constant=False)] * 2, integers(1), "type INT64"),
    "five axes": ("TRANSPOSE", None, [floats(4, 4, 2, 2, 3), integers(5)], floats(3, 4, 2, 4, 2), "4 axes at most"),
    "a slice of a row": ("SLICE", None, [floats(1, 5), integers(2), integers(2)], floats(1, 1), "3 or 4 axes, not 2"),
    "axes spread": ("MUL", None, [_X, floats(4, 8)], _X, "does not spread 2 axes over 3"),
    "axes that are computed": ("MEAN", None, [_X, integers(1, is_constant=False)], floats(1, 4, 1), "constant axes"),
    "a kind of number": ("CAST", None, [integers(1, kind="INT8", is_constant=False)], floats(1), "INT8 to FLOAT32"),
    "a bias that is computed": ("FULLY_CONNECTED", None, [floats(2, 8), floats(4, 8), floats(4)], floats(2, 4), "bias"),
    "axes that go": (
        "FULLY_CONNECTED", SimpleNamespace(keepNumDims=True), [_X, floats(4, 8, is_constant=True)], floats(4, 4),
        "keeps the number of axes",
    ),
    "a softmax of another beta": ("SOFTMAX", SimpleNamespace(beta=0.5), [_X], _X, "beta"),
    "two axes of places": ("GATHER", None, [_X, integers(1, 1)], _X, "gathers by one axis"),
}  # fmt: skip


@pytest.mark.parametrize("case", _CASES)
def test_it_is_named(case: str) -> None:
    op_type, options, reads, result, reason = _CASES[case]
    assert reason in find_obstacle(op_type, options, reads, [result])


@pytest.mark.parametrize(
    ("op_type", "reads"),
    [
        ("ADD", [_X, floats(1, 1, 8)]),
        ("MUL", [_X, floats()]),
        ("SLICE", [_X, integers(3), integers(3)]),
        ("FULLY_CONNECTED", [_X, floats(4, 8, is_constant=True), floats(4, is_constant=True)]),
        ("BATCH_MATMUL", [_X, floats(1, 8, 4)]),
        ("SOFTMAX", [_X]),
        ("GELU", [_X]),
    ],
)
def test_the_rest_is_free(op_type: str, reads: list[Operand]) -> None:
    options = {"SOFTMAX": SimpleNamespace(beta=1.0), "FULLY_CONNECTED": SimpleNamespace(keepNumDims=True)}
    assert find_obstacle(op_type, options.get(op_type), reads, [_X]) == ""
