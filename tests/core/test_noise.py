from __future__ import annotations

import json
import math
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

from kind_core.errors import ConfigError
from kind_core.noise import (
    draw_words,
    format_test_vectors,
    philox4x32,
    picture_seed,
    start_noise,
    words_to_normals,
)

SHIPPED = (files("kind_core") / "data" / "noise_vectors.json").read_text(encoding="utf-8")
VECTORS = json.loads(SHIPPED)["vectors"]


# kat_vectors of Random123 (D. E. Shaw Research), the lines `philox4x32 10`
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_known_answers(counter: str, key: str, expected: str) -> None:
    k0, k1 = (int(word, 16) for word in key.split())
    words = philox4x32(np.array([[int(word, 16) for word in counter.split()]], dtype=np.uint32), (k0, k1))
    assert " ".join(f"{word:08x}" for word in words[0]) == expected


def test_words_follow_the_documented_counter_and_key() -> None:
    seed = (7 << 32) + 5
    words = draw_words(seed, 3)
    for block in range(3):
        alone = philox4x32(np.array([[block, 0, 0, 0]], dtype=np.uint32), (5, 7))
        assert np.array_equal(words[4 * block : 4 * block + 4], alone[0])


@pytest.mark.parametrize("a", [0, 1, 12345, 2**31, 2**32 - 1])
@pytest.mark.parametrize("b", [0, 2**29, 2**31, 2**32 - 1])
def test_normals_follow_the_documented_formula_at_its_ends_too(a: int, b: int) -> None:
    r, angle = math.sqrt(-2 * math.log((a + 1) / 2**32)), 2 * math.pi * b / 2**32
    normals = words_to_normals(np.array([a, b], dtype=np.uint32))
    np.testing.assert_allclose(normals, [r * math.cos(angle), r * math.sin(angle)], rtol=1e-6, atol=1e-12)


def test_noise_is_the_normals_of_the_words() -> None:
    assert np.array_equal(start_noise(3, (8,)), words_to_normals(draw_words(3, 2)))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["seed"])
def test_the_shipped_vectors_are_what_the_code_gives(vector: dict[str, Any]) -> None:
    seed, normals = int(vector["seed"]), np.array(vector["normals"], dtype=np.float32)
    assert draw_words(seed, 4).tolist() == vector["words"]
    # exact on one machine; ln, cos and sin of another libm may move the last bit
    np.testing.assert_array_max_ulp(start_noise(seed, (16,)), normals, maxulp=1)


def test_the_shipped_file_is_what_the_module_prints() -> None:
    printed = json.loads(format_test_vectors())["vectors"]
    assert [vector["seed"] for vector in printed] == [vector["seed"] for vector in VECTORS]
    assert [vector["words"] for vector in printed] == [vector["words"] for vector in VECTORS]


def test_noise_is_standard_normal() -> None:
    noise = start_noise(0, (400, 500)).astype(np.float64)
    assert abs(noise.mean()) < 0.01
    assert noise.std() == pytest.approx(1, abs=0.01)
    assert (noise**3).mean() == pytest.approx(0, abs=0.03)
    assert (noise**4).mean() == pytest.approx(3, abs=0.1)
    assert abs(noise[:, 0::2] * noise[:, 1::2]).mean() == pytest.approx(2 / np.pi, abs=0.01)  # pairs are
    assert abs((noise[:, 0::2] * noise[:, 1::2]).mean()) < 0.01  # independent
    assert np.isfinite(noise).all()


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (5,), (3, 3), (0, 4), ()])
def test_a_shape_takes_the_first_normals_in_c_order(shape: tuple[int, ...]) -> None:
    noise = start_noise(11, shape)
    assert noise.shape == shape
    assert noise.dtype == np.float32
    assert np.array_equal(noise.reshape(-1), start_noise(11, (1000,))[: noise.size])


def test_seeds_differ_in_every_bit_they_have() -> None:
    seeds = [0, 1, 2**31, 2**32, 2**63, 2**64 - 1]
    assert len({start_noise(seed, (4,)).tobytes() for seed in seeds}) == len(seeds)


def test_pictures_of_a_batch_count_up_from_its_seed() -> None:
    assert [picture_seed(40, i) for i in range(3)] == [40, 41, 42]


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, True, "1"])
def test_a_seed_outside_64_bits_is_refused(seed: int) -> None:
    message = f"seed is {seed!r}, expected a whole number from 0 to 18446744073709551615"
    with pytest.raises(ConfigError, match=message):
        start_noise(seed, (4,))


def test_a_batch_that_runs_past_the_last_seed_is_refused() -> None:
    assert picture_seed(2**64 - 2, 1) == 2**64 - 1
    with pytest.raises(ConfigError, match=f"seed is {2**64}"):
        picture_seed(2**64 - 2, 2)
