"""Compressed constants, read back from disk: the rules against coremltools' own expansion and against hand figures."""

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
from kind_runtimes.coreml.ops import find_rule
from kind_runtimes.coreml.ops.compression import (
    constexpr_blockwise_shift_scale,
    constexpr_cast,
    constexpr_lut_to_dense,
)
from kind_runtimes.coreml.package import CoreMLPackage
from kind_runtimes.quiet import import_coremltools

RANDOM = np.random.default_rng(3)
SHAPE = (12, 8)
NUM_ELEMENTS = 96


def draw_halves(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float16)


def draw(dtype: str, *shape: int) -> np.ndarray:
    """Numbers of a MIL integer type, of any width."""
    import_coremltools()
    from coremltools.converters.mil.mil import types

    bits = int(dtype.lstrip("uint"))
    low, high = (0, 1 << bits) if dtype.startswith("u") else (-(1 << bits - 1), 1 << bits - 1)
    numbers = RANDOM.integers(low, high, shape)
    return numbers.astype(types.nptype_from_builtin(types.string_to_builtin(dtype)))


CASES: list[tuple[str, str, Callable[[Any], Any]]] = [
    (
        "iOS17",
        "int8, a scale per row",
        lambda mb: mb.constexpr_affine_dequantize(
            quantized_data=draw("int8", *SHAPE), zero_point=draw("int8", 12), scale=draw_halves(12), axis=np.int32(0)
        ),
    ),
    (
        "iOS17",
        "uint8, one scale",
        lambda mb: mb.constexpr_affine_dequantize(
            quantized_data=draw("uint8", *SHAPE), zero_point=np.uint8(129), scale=np.float16(0.3), axis=np.int32(1)
        ),
    ),
    *(
        (
            "iOS17",
            f"palette of {bits} bits",
            lambda mb, bits=bits: mb.constexpr_lut_to_dense(
                indices=draw("uint8", NUM_ELEMENTS * bits // 8), lut=draw_halves(1 << bits), shape=np.uint32(SHAPE)
            ),
        )
        for bits in (1, 2, 4, 6, 8)
    ),
    (
        "iOS17",
        "sparse",
        lambda mb: mb.constexpr_sparse_to_dense(
            nonzero_data=draw_halves(3 * 12), mask=np.full(12, 0b10010100, np.uint8), shape=np.uint32(SHAPE)
        ),
    ),
    *(
        (
            "iOS18",
            f"{dtype}, {scales} scales",
            lambda mb, dtype=dtype, scales=scales: mb.constexpr_blockwise_shift_scale(
                data=draw(dtype, *SHAPE), scale=draw_halves(*scales), offset=draw(dtype, *scales)
            ),
        )
        for dtype in ("int8", "uint8", "int4", "uint4")
        for scales in ((12, 1), (3, 4))
    ),
    (
        "iOS18",
        "int4 without offset",
        lambda mb: mb.constexpr_blockwise_shift_scale(data=draw("int4", *SHAPE), scale=draw_halves(12, 2)),
    ),
    *(
        (
            "iOS18",
            f"palettes of {bits} bits in {groups} groups",
            lambda mb, bits=bits, groups=groups: mb.constexpr_lut_to_dense(
                indices=draw(f"uint{bits}", *SHAPE), lut=draw_halves(groups, 1, 1 << bits, 1)
            ),
        )
        for bits in (1, 2, 3, 4, 6, 8)
        for groups in (1, 3)
    ),
    *(
        (
            "iOS18",
            f"vectors along {axis}",
            lambda mb, axis=axis: mb.constexpr_lut_to_dense(
                indices=draw("uint4", 6, 4), lut=draw_halves(2, 1, 16, 2), vector_axis=np.int32(axis)
            ),
        )
        for axis in (0, 1, -1)
    ),
    ("iOS18", "sparse", lambda mb: mb.constexpr_sparse_to_dense(nonzero_data=draw_halves(20), mask=sparse_mask())),
]


def sparse_mask() -> np.ndarray:
    mask = draw("uint1", *SHAPE)
    mask[...] = 0
    mask.reshape(-1)[::5] = 1
    return mask


@pytest.fixture(scope="module")
def constants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, np.ndarray, np.ndarray]]:
    """By target and case: op type, the constant that the saved program gives, the one that coremltools expands."""
    results: dict[str, tuple[str, np.ndarray, np.ndarray]] = {}
    for target in ("iOS17", "iOS18"):
        cases = {f"{one} {name}": build for one, name, build in CASES if one == target}
        values, made, package = run_constants(list(cases.values()), target, tmp_path_factory.mktemp(target))
        types = Counter(var.op.op_type for var in made)
        assert {name: count_ops(package)[name] for name in types} == types, "a conversion pass replaced an op"
        for name, value, var in zip(cases, values, made, strict=True):
            results[name] = var.op.op_type, value, np.asarray(var.op.materialized_val_inference())
    return results


def run_constants(
    builds: Sequence[Callable[[Any], Any]], target: str, folder: Path
) -> tuple[list[np.ndarray], list[Any], CoreMLPackage]:
    """(values of the constants in a saved program, the variables that were built, the package)."""
    made: list[Any] = []

    def add(mb: Any, t: SimpleNamespace) -> list[Any]:
        made.extend(build(mb) for build in builds)
        return [mb.add(x=var, y=t.x) for var in made]

    package = save_program(add, {"x": ((1,), "fp16")}, folder / "constants.mlpackage", target, "FLOAT16")
    return list(Evaluator(package).run({"x": np.zeros(1, np.float16)}).values()), made, package


@pytest.mark.parametrize("name", [f"{target} {name}" for target, name, _ in CASES])
def test_constant_is_what_coremltools_expands(name: str, constants: Any) -> None:
    _, value, expected = constants[name]
    assert value.dtype == np.float16
    np.testing.assert_array_equal(value, expected)


def test_every_form_is_tried(constants: Any) -> None:
    types = {op_type for op_type, _, _ in constants.values()}
    assert len(types) == 4
    assert all(find_rule(one) for one in types)


@pytest.mark.parametrize("groups", [1, 3])
def test_table_that_is_itself_quantised(groups: int, tmp_path: Path) -> None:
    """coremltools does not expand this form, so the figures are made by hand."""
    indices, steps = draw("uint4", *SHAPE), draw("int8", groups, 1, 16, 1)
    scale = np.full((1, 1, 1, 1), 1 / 64, np.float16)

    def build(mb: Any) -> Any:
        table = mb.constexpr_blockwise_shift_scale(data=steps, scale=scale)
        return mb.constexpr_lut_to_dense(indices=indices, lut=table)

    (value,), _, package = run_constants([build], "iOS18", tmp_path)
    assert count_ops(package)["constexpr_blockwise_shift_scale"] == 1
    rows = np.arange(SHAPE[0])[:, None] * groups // SHAPE[0]
    np.testing.assert_array_equal(value, steps[rows, 0, indices.astype(int), 0] / 64)


def test_table_of_integers_under_a_scale(tmp_path: Path) -> None:
    indices, table = draw("uint4", *SHAPE), draw("int8", 1, 1, 16, 1)
    scale = np.exp2(RANDOM.integers(-9, 0, (SHAPE[0], 1))).astype(np.float16)

    def build(mb: Any) -> Any:
        dense = mb.constexpr_lut_to_dense(indices=indices, lut=table)
        return mb.constexpr_blockwise_shift_scale(data=dense, scale=scale)

    (value,), _, _ = run_constants([build], "iOS18", tmp_path)
    np.testing.assert_array_equal(value, scale * table[0, 0, indices.astype(int), 0])


@pytest.mark.parametrize(
    ("expand", "message"),
    [
        (lambda: constexpr_blockwise_shift_scale(torch.zeros(4, 6), torch.ones(3, 1)), "3 blocks do not divide axis 0"),
        (lambda: constexpr_lut_to_dense(torch.zeros(4, 6), torch.ones(1, 1, 4, 2)), "needs a vector_axis"),
        (lambda: constexpr_cast(torch.zeros(4), "int32"), "no conversion to int32"),
    ],
)
def test_constants_that_do_not_fit_are_refused(expand: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expand()
