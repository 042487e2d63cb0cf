"""How the tests here run ops: all cases of a file in one program per precision, saved and read back.

A case is (op type, build, expect): `build(mb, t)` adds the op to a MIL program whose inputs are `t.x`, `t.y`
and so on, `expect(t)` is the independent formula on torch tensors of the same names. Inputs and weights are small
multiples of 1/16, exact in fp16: a fp16 result may differ from the exact one by its own rounding alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from coreml_programs import count_ops, save_program
from kind_runtimes.coreml.evaluator import Evaluator

Case = tuple[str, Callable[..., Any], Callable[..., Any]]
_RANDOM = np.random.default_rng(0)


def _draw(*shape: int, low: int = -32, high: int = 32, unit: float = 8) -> np.ndarray:
    return (_RANDOM.integers(low, high + 1, shape) / unit).astype(np.float32)


INPUTS: dict[str, np.ndarray] = {
    "x": _draw(2, 3, 4, 6),
    "y": _draw(2, 3, 4, 6),
    "p": _draw(2, 3, 4, 6, low=1),  # positive
    "u": _draw(2, 3, 4, 6, low=-15, high=15, unit=16),  # within (-1, 1)
    "s": _draw(2, 5, 8),  # sequences
    "r": _draw(2, 5, 8),
    "i": _RANDOM.integers(0, 4, (2, 3)).astype(np.int32),  # indices
    "j": _RANDOM.integers(-6, 7, (2, 3)).astype(np.int32),
    "k": _RANDOM.integers(0, 4, (2, 3, 4, 6)).astype(np.int32),
}


@pytest.fixture(scope="module")
def check_op(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """A function of (all cases, index of one, precision, target) that compares the one with its formula."""
    results: dict[tuple[str, str], tuple[Counter[str], list[list[np.ndarray]]]] = {}

    def check(cases: Sequence[Case], index: int, precision: str, target: str = "iOS17") -> None:
        key = (precision, target)
        if key not in results:
            results[key] = _run_cases(cases, precision, target, tmp_path_factory.mktemp("ops"))
        counts, outputs = results[key]
        op_type, _, expect = cases[index]
        assert counts[op_type] > 0, "a conversion pass replaced the op"
        expected = expect(SimpleNamespace(**{name: torch.from_numpy(one) for name, one in INPUTS.items()}))
        references = expected if isinstance(expected, tuple) else (expected,)
        for value, reference in zip(outputs[index], references, strict=True):
            _compare(value, reference.numpy(), precision)

    return check


def _compare(value: np.ndarray, reference: np.ndarray, precision: str) -> None:
    if value.dtype.kind == "i":
        np.testing.assert_array_equal(value, reference)
    elif precision == "FLOAT32":
        np.testing.assert_allclose(value, reference, rtol=2e-6, atol=1e-6)
    else:
        np.testing.assert_array_equal(value, value.astype(np.float16))
        np.testing.assert_allclose(value, reference, rtol=2**-10, atol=2**-13)


def _run_cases(
    cases: Sequence[Case], precision: str, target: str, folder: Path
) -> tuple[Counter[str], list[list[np.ndarray]]]:
    """Op counts of the saved program, and the outputs of each case."""
    sizes: list[int] = []

    def build(mb: Any, t: SimpleNamespace) -> list[Any]:
        built = [build_one(mb, t) for _, build_one, _ in cases]
        groups = [list(one) if isinstance(one, list | tuple) else [one] for one in built]
        sizes.extend(map(len, groups))
        return [value for group in groups for value in group]

    dtypes = {"f": "fp32", "i": "int32"}
    placeholders = {name: (one.shape, dtypes[one.dtype.kind]) for name, one in INPUTS.items()}
    package = save_program(build, placeholders, folder / "ops.mlpackage", target, precision)
    values = iter(Evaluator(package).run(INPUTS).values())
    return count_ops(package), [[next(values) for _ in range(size)] for size in sizes]
