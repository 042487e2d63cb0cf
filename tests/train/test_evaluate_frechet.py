from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from kind_core.errors import DataError
from kind_train.evaluate.frechet import (
    _distance,
    compare_frechet,
    frechet_distance,
    real_floor,
    subsample_equal,
)

RNG_SEED = 7


def make_rows(n: int, d: int, *, seed: int = RNG_SEED, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, scale, (n, d)).astype(np.float32)


def whiten(rows: np.ndarray) -> np.ndarray:
    """Rows of mean exactly 0 and covariance exactly 1."""
    centred = rows.astype(np.float64) - rows.mean(0, dtype=np.float64)
    u, _, vt = np.linalg.svd(centred, full_matrices=False)
    return u @ vt * np.sqrt(len(rows) - 1)


@pytest.mark.parametrize(("n", "d"), [(20, 50), (50, 20)], ids=["singular", "full rank"])
def test_equal_sets_are_at_distance_zero(n: int, d: int) -> None:
    rows = make_rows(n, d, scale=3, shift=5)
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(rows, rows[::-1]) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("n", "d"), [(20, 50), (50, 20)], ids=["singular", "full rank"])
def test_distance_is_symmetric(n: int, d: int) -> None:
    a, b = make_rows(n, d, seed=1), make_rows(n + 7, d, seed=2, scale=2, shift=1)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)
    assert frechet_distance(a, b) > 1


def test_distance_of_known_gaussians_is_the_closed_form() -> None:
    a, b = whiten(make_rows(60, 4, seed=1)), whiten(make_rows(80, 4, seed=2))
    deviations_a, deviations_b = np.array([1.0, 2.0, 0.5, 3.0]), np.array([2.0, 2.0, 1.5, 0.1])
    shift = np.array([0.0, 1.0, -2.0, 0.5])
    # Commuting covariances: the distance is that of the means plus that of the standard deviations.
    expected = np.sum(shift**2) + np.sum((deviations_a - deviations_b) ** 2)
    assert frechet_distance(a * deviations_a, b * deviations_b + shift) == pytest.approx(expected, rel=1e-10)


def test_distance_equals_the_formula_with_a_matrix_root() -> None:
    a, b = make_rows(200, 6, seed=1).astype(np.float64), make_rows(300, 6, seed=2).astype(np.float64)
    b = b @ np.random.default_rng(3).normal(size=(6, 6)) + 0.3
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root_trace = np.sum(np.sqrt(np.linalg.eigvals(cov_a @ cov_b).real))
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2 * root_trace
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_distance_is_invariant_to_rotation_and_translation() -> None:
    a, b = make_rows(30, 40, seed=1).astype(np.float64), make_rows(30, 40, seed=2, scale=2).astype(np.float64)
    rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(40, 40)))
    moved = frechet_distance(a @ rotation + 11, b @ rotation + 11)
    assert moved == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_distance_scales_with_the_square() -> None:
    a, b = make_rows(30, 10, seed=1), make_rows(30, 10, seed=2, shift=1)
    assert frechet_distance(a * 8, b * 8) == pytest.approx(64 * frechet_distance(a, b), rel=1e-9)


def test_the_floor_falls_as_n_grows() -> None:
    rows = make_rows(400, 30)
    floors = [real_floor(rows[:200], rows[200:], n=n, num_replicates=1).distance for n in (20, 60, 200)]
    assert floors[0] > floors[1] > floors[2] > 0


def test_bootstrap_contains_the_estimate_and_is_seeded() -> None:
    a, b = make_rows(60, 20, seed=1), make_rows(60, 20, seed=2, shift=0.3)
    first = compare_frechet(a, b, num_replicates=40, seed=3)
    assert first.low < first.distance < first.high
    assert first == compare_frechet(a, b, num_replicates=40, seed=3)
    assert first.low != compare_frechet(a, b, num_replicates=40, seed=4).low


def test_a_replicate_is_the_distance_of_repeated_rows() -> None:
    a, b = make_rows(12, 30, seed=1).astype(np.float64), make_rows(12, 30, seed=2).astype(np.float64)
    rng = np.random.default_rng(3)
    counts_a, counts_b = (rng.multinomial(12, np.full(12, 1 / 12)) for _ in range(2))
    expected = frechet_distance(a.repeat(counts_a, axis=0), b.repeat(counts_b, axis=0))
    assert _distance(a, b, counts_a, counts_b) == pytest.approx(expected, rel=1e-9)


def test_bootstrap_spread_is_that_of_new_samples() -> None:
    def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
        return make_rows(80, 12, seed=2 * seed), make_rows(80, 12, seed=2 * seed + 1, scale=1.3, shift=0.5)

    spread = np.std([frechet_distance(*draw(seed)) for seed in range(100)])
    widths = [(r := compare_frechet(*draw(seed), num_replicates=60)).high - r.low for seed in range(5)]
    assert np.mean(widths) / (2 * 1.96) == pytest.approx(spread, rel=0.35)


def test_a_wider_level_gives_a_wider_interval() -> None:
    a, b = make_rows(50, 10, seed=1), make_rows(50, 10, seed=2, shift=0.3)
    narrow = compare_frechet(a, b, num_replicates=50, level=0.5)
    wide = compare_frechet(a, b, num_replicates=50, level=0.95)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_sets_are_brought_to_equal_n() -> None:
    a, b = make_rows(30, 5, seed=1), make_rows(50, 5, seed=2)
    drawn_a, drawn_b = subsample_equal(a, b)
    assert np.array_equal(drawn_a, a)
    assert len(drawn_b) == 30
    assert len({row.tobytes() for row in drawn_b} & {row.tobytes() for row in b}) == 30
    assert compare_frechet(a, b, num_replicates=2).n == 30
    assert compare_frechet(a, b, n=12, num_replicates=2).n == 12


@pytest.mark.parametrize("n", [1, 31])
def test_an_n_that_the_sets_do_not_have_is_refused(n: int) -> None:
    with pytest.raises(DataError, match=f"cannot compare {n} rows of sets of 30 and 50, expected 2 to 30"):
        subsample_equal(make_rows(30, 5), make_rows(50, 5), n=n)


def test_the_floor_refuses_sets_that_share_photos() -> None:
    rows = make_rows(40, 8)
    with pytest.raises(DataError, match="10 of 25 photos are also in the other set"):
        real_floor(rows[:25], rows[15:])


def test_rows_that_are_no_numbers_are_refused() -> None:
    rows = make_rows(10, 3)
    rows[4, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        frechet_distance(rows, make_rows(10, 3))
    with pytest.raises(ValueError, match=r"\(10, 3\) and \(10, 4\)"):
        frechet_distance(make_rows(10, 3), make_rows(10, 4))


def test_a_comparison_goes_to_json() -> None:
    result = compare_frechet(make_rows(20, 5, seed=1), make_rows(20, 5, seed=2), num_replicates=5)
    assert json.loads(json.dumps(asdict(result))) == asdict(result)
