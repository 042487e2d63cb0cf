from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from kind_train.evaluate.classification import (
    measure_asked_class_share,
    measure_output_statistics,
    wilson_interval,
)


def make_logits(called: list[int], num_classes: int = 10) -> np.ndarray:
    """Logits whose most likely class is the listed one."""
    logits = np.random.default_rng(0).normal(size=(len(called), num_classes)).astype(np.float32)
    logits[np.arange(len(called)), called] = 9
    return logits


def test_share_counts_the_images_called_the_asked_class() -> None:
    share = measure_asked_class_share(make_logits([3, 3, 1, 3, 9]), 3)
    assert (share.num_asked, share.num_images, share.share) == (3, 5, 0.6)
    assert share.low < 0.6 < share.high


@pytest.mark.parametrize(
    ("num_hits", "num_trials", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_is_the_published_one(num_hits: int, num_trials: int, low: float, high: float) -> None:
    assert wilson_interval(num_hits, num_trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_bounds_solve_the_score_equation() -> None:
    for bound in wilson_interval(17, 40, level=0.9):
        assert abs(17 / 40 - bound) / (bound * (1 - bound) / 40) ** 0.5 == pytest.approx(1.6448536, rel=1e-6)


def test_wilson_interval_stays_within_zero_and_one_and_mirrors() -> None:
    low, high = wilson_interval(50, 50)
    assert 0.9 < low < high == 1
    assert wilson_interval(0, 50) == pytest.approx((1 - high, 1 - low))


def test_wilson_interval_covers_the_true_share() -> None:
    hits = np.random.default_rng(1).binomial(40, 0.2, 2000)
    bounds = [wilson_interval(int(h), 40) for h in hits]
    assert np.mean([low <= 0.2 <= high for low, high in bounds]) == pytest.approx(0.95, abs=0.03)


def test_a_sure_output_has_the_statistics_of_a_point() -> None:
    statistics = measure_output_statistics(1e4 * np.eye(1000, dtype=np.float32)[[0, 388]])
    assert statistics.entropy == pytest.approx(0, abs=1e-12)
    assert statistics.variance == pytest.approx(999 / 1000**2)
    # Excess kurtosis of a Bernoulli variable of chance q: (1 - 6 q (1 - q)) / (q (1 - q)).
    q = 1 / 1000
    assert statistics.kurtosis == pytest.approx((1 - 6 * q * (1 - q)) / (q * (1 - q)))
    assert statistics.num_images == 2


@pytest.mark.parametrize("level", [0.0, 3.7])
def test_a_uniform_output_has_full_entropy_and_no_variance(level: float) -> None:
    statistics = measure_output_statistics(np.full((2, 1000), level, np.float32))
    assert statistics.entropy == pytest.approx(np.log(1000))
    assert statistics.variance == pytest.approx(0, abs=1e-20)
    assert statistics.kurtosis == 0


def test_two_even_classes_have_one_bit() -> None:
    logits = np.full((1, 1000), -1e4)
    logits[0, [5, 8]] = 2
    statistics = measure_output_statistics(logits)
    assert statistics.entropy == pytest.approx(np.log(2))
    assert statistics.variance == pytest.approx(2 * 0.5**2 / 1000 - 0.001**2)


def test_statistics_are_those_of_the_written_formulas() -> None:
    logits = np.random.default_rng(2).normal(0, 3, (6, 1000)).astype(np.float32)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    standardised = (p - 1 / 1000) / p.std(1, keepdims=True)
    statistics = measure_output_statistics(logits)
    assert statistics.entropy == pytest.approx(-(p * np.log(p)).sum(1).mean(), rel=1e-9)
    assert statistics.variance == pytest.approx(p.var(1).mean(), rel=1e-9)
    assert statistics.kurtosis == pytest.approx((standardised**4).mean(1).mean() - 3, rel=1e-9)


def test_statistics_are_means_over_images_and_blind_to_an_offset() -> None:
    logits = np.random.default_rng(2).normal(0, 3, (2, 50))
    both = measure_output_statistics(logits)
    each = [measure_output_statistics(logits[i : i + 1] + 500) for i in range(2)]
    for field in ("entropy", "variance", "kurtosis"):
        assert getattr(both, field) == pytest.approx(np.mean([getattr(one, field) for one in each]), rel=1e-9)


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="asked class is 10, expected 0 to 9"):
        measure_asked_class_share(make_logits([1]), 10)
    with pytest.raises(ValueError, match="expected"):
        measure_output_statistics(np.zeros((0, 10)))
    with pytest.raises(ValueError, match="NaN"):
        measure_output_statistics(np.full((1, 10), np.nan))
    with pytest.raises(ValueError, match="5 hits of 4 trials"):
        wilson_interval(5, 4)


def test_results_go_to_json() -> None:
    for result in (
        measure_asked_class_share(make_logits([1, 2]), 1),
        measure_output_statistics(make_logits([1, 2])),
    ):
        assert json.loads(json.dumps(asdict(result))) == asdict(result)
