from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from kind_core.errors import DataError
from kind_train.evaluate.neighbours import check_copying, find_nearest, require_disjoint


def make_rows(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def make_images(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 3), np.uint8)


@pytest.mark.parametrize("chunk_rows", [1, 4, 7, 100])
def test_nearest_equals_brute_force_for_any_chunk(chunk_rows: int) -> None:
    rows, references = make_rows(13, 6, 1), make_rows(29, 6, 2)
    every = np.linalg.norm(rows[:, None].astype(np.float64) - references[None], axis=-1)
    nearest = find_nearest(rows, references, chunk_rows=chunk_rows)
    assert np.array_equal(nearest.indices, every.argmin(1))
    np.testing.assert_allclose(nearest.distances, every.min(1), rtol=1e-12)


def test_pixels_are_read_as_zero_to_one() -> None:
    rows, references = make_images(5, 1), make_images(9, 2)
    every = np.linalg.norm((rows[:, None] / 255.0 - references[None] / 255.0).reshape(5, 9, -1), axis=-1)
    np.testing.assert_allclose(find_nearest(rows, references, chunk_rows=4).distances, every.min(1), rtol=1e-12)
    black, white = np.zeros((1, 2, 2, 3), np.uint8), np.full((1, 2, 2, 3), 255, np.uint8)
    assert find_nearest(black, white).distances[0] == pytest.approx(12**0.5)


def test_a_copy_is_at_distance_zero_even_far_from_the_origin() -> None:
    references = make_rows(20, 8, 1) + 1e4
    nearest = find_nearest(references[[11, 3]], references)
    assert nearest.distances.tolist() == [0, 0]
    assert nearest.indices.tolist() == [11, 3]


def test_photos_of_the_same_source_are_as_far_as_each_other() -> None:
    check = check_copying(make_rows(300, 5, 1), make_rows(300, 5, 2), make_rows(400, 5, 3))
    assert check.ratio == pytest.approx(1, abs=0.1)
    assert check.near_share < 0.05
    assert check.num_identical == 0
    assert (check.num_generated, check.num_held_out, check.num_training) == (300, 300, 400)


def test_a_copier_is_seen() -> None:
    training = make_rows(400, 5, 3)
    near = training[:100] + 0.01 * make_rows(100, 5, 4)
    check = check_copying(np.concatenate([near, training[:20]]), make_rows(100, 5, 2), training)
    assert check.ratio < 0.1
    assert check.near_share > 0.9
    assert check.num_identical == 20


def test_means_and_errors_are_those_of_the_distances() -> None:
    generated, held_out, training = make_rows(30, 5, 1), make_rows(40, 5, 2), make_rows(50, 5, 3)
    check = check_copying(generated, held_out, training)
    distances = find_nearest(generated, training).distances
    assert check.generated_mean == pytest.approx(distances.mean())
    assert check.generated_standard_error == pytest.approx(distances.std(ddof=1) / 30**0.5)
    assert check.held_out_mean == pytest.approx(find_nearest(held_out, training).distances.mean())


def test_pixel_space_sees_a_copied_image() -> None:
    training = make_images(30, 1)
    check = check_copying(training[:10], make_images(10, 2), training, space="pixels")
    assert (check.space, check.ratio, check.num_identical) == ("pixels", 0, 10)


def test_held_out_photos_that_were_trained_on_are_refused() -> None:
    training = make_rows(50, 5, 1)
    # Another batch size moves the features by rounding: still the same photos.
    leaked = training[:20] * (1 + 1e-7)
    with pytest.raises(DataError, match="20 of 20 photos are also in the other set"):
        check_copying(make_rows(20, 5, 2), leaked, training)


def test_a_rare_duplicate_is_no_leak() -> None:
    photos, others = make_rows(200, 5, 1), make_rows(100, 5, 2)
    require_disjoint(np.concatenate([photos, others[:2]]), others)
    with pytest.raises(DataError, match="3 of 203"):
        require_disjoint(np.concatenate([photos, others[:3]]), others)


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="one row shape"):
        find_nearest(make_rows(3, 4, 1), make_rows(3, 5, 1))
    with pytest.raises(ValueError, match="one dtype"):
        find_nearest(make_images(3, 1), make_images(3, 1) / 255)
    with pytest.raises(ValueError, match="expected uint8 for pixels"):
        check_copying(make_rows(3, 4, 1), make_rows(3, 4, 2), make_rows(3, 4, 3), space="pixels")
    with pytest.raises(ValueError, match="2 or more"):
        check_copying(make_rows(1, 4, 1), make_rows(3, 4, 2), make_rows(3, 4, 3))


def test_a_check_goes_to_json() -> None:
    check = check_copying(make_rows(5, 4, 1), make_rows(5, 4, 2), make_rows(5, 4, 3))
    assert json.loads(json.dumps(asdict(check))) == asdict(check)
