"""Palettes of fp16 weights: as good as the best, and the same for the same weights."""

from __future__ import annotations

import numpy as np
import pytest

from kind_export.targets.coreml.palette import fit_palette

RANDOM = np.random.default_rng(0)


def measure_error(weights: np.ndarray, num_bits: int) -> float:
    palette, indices = fit_palette(weights, num_bits)
    return float(np.square(palette[indices].astype(np.float64) - weights.reshape(-1)).sum())


@pytest.mark.parametrize("seed", range(5))
def test_two_values_are_the_best_two(seed: int) -> None:
    weights = np.random.default_rng(seed).standard_t(2, 40).astype(np.float16)
    ordered = np.sort(weights.astype(np.float64))
    best = min(
        sum(float(np.square(part - part.mean()).sum()) for part in (ordered[:cut], ordered[cut:]))
        for cut in range(1, 40)
    )
    assert measure_error(weights, 1) == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize(("num_bits", "floor_db"), [(4, 20.1), (6, 31.5)])
def test_normal_weights_reach_the_bound_of_their_bits(num_bits: int, floor_db: float) -> None:
    """The best scalar quantisers of a Gaussian have 20.22 dB with 16 values and 31.89 dB with 64 (Max 1960)."""
    weights = RANDOM.standard_normal(200_000).astype(np.float16)
    power = float(np.square(weights.astype(np.float64)).sum())
    assert 10 * np.log10(power / measure_error(weights, num_bits)) > floor_db


@pytest.mark.parametrize("values", [[0.0], [1.0, -1.0], list(range(16)), [0.0, -0.0, 65504.0, 6e-8]])
def test_few_values_are_held_exactly(values: list[float]) -> None:
    weights = RANDOM.permutation(np.array(values * 7, np.float16)).reshape(7, -1)
    palette, indices = fit_palette(weights, 4)
    assert palette.shape == (16,)
    np.testing.assert_array_equal(palette[indices].reshape(weights.shape), weights)


def test_palette_depends_on_the_weights_alone() -> None:
    weights = RANDOM.standard_normal((16, 160)).astype(np.float16)
    palette, indices = fit_palette(weights, 6)
    order = RANDOM.permutation(weights.size)
    again, permuted = fit_palette(weights.reshape(-1)[order], 6)
    np.testing.assert_array_equal(again, palette)
    np.testing.assert_array_equal(permuted, indices[order])


def test_each_weight_has_its_nearest_value() -> None:
    weights = RANDOM.standard_t(3, 5000).astype(np.float16)
    palette, indices = fit_palette(weights, 4)
    assert palette.dtype == np.float16
    assert indices.dtype == np.uint8
    distances = np.abs(palette.astype(np.float64)[None] - weights.astype(np.float64)[:, None])
    np.testing.assert_array_equal(distances[np.arange(5000), indices], distances.min(axis=1))
