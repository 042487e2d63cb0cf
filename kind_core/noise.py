"""Start noise: from a seed to normal numbers, the same in every language.

1. Words: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). The key is
   (seed low 32 bits, seed high 32 bits), the counter of block j is (j low, j high, 0, 0); a block gives four
   32-bit words.
2. Normals: each pair of words (a, b) gives two by Box-Muller, in 64-bit floats, rounded to 32-bit floats:
   u1 = (a + 1) / 2^32, u2 = b / 2^32, r = sqrt(-2 ln u1), then r cos(2 pi u2), r sin(2 pi u2).
3. They fill the tensor in C order; what the last block has too many is dropped.

Words are exact everywhere; normals may differ in the last bit, where a language's ln, cos or sin does.
`kind_core/data/noise_vectors.json` holds test vectors; `python -m kind_core.noise` prints it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence

import numpy as np

from kind_core.errors import ConfigError

_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_VECTOR_SEEDS = (0, 1, 42, 2**32 - 1, 2**32, 2**64 - 1)


def start_noise(seed: int, shape: Sequence[int]) -> np.ndarray:
    """Standard normal numbers of `shape`, float32. Raises ConfigError for a seed outside 0 to 2^64 - 1."""
    count = math.prod(shape)
    normals = words_to_normals(draw_words(seed, -(-count // 4)))
    return normals[:count].reshape(tuple(shape))


def picture_seed(seed: int, index: int) -> int:
    """Seed of picture `index` of a batch: `seed` + `index`, so that any picture can be made alone."""
    _require_seed(seed)
    _require_seed(seed + index)
    return seed + index


def draw_words(seed: int, blocks: int) -> np.ndarray:
    """The first `blocks` Philox blocks of `seed`, (4 * blocks,) uint32."""
    _require_seed(seed)
    counter = np.zeros((blocks, 4), dtype=np.uint32)
    index = np.arange(blocks, dtype=np.uint64)
    counter[:, 0], counter[:, 1] = index & _MASK, index >> _SHIFT
    return philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32)).reshape(-1)


def words_to_normals(words: np.ndarray) -> np.ndarray:
    """Box-Muller of each pair of words, (2 * pairs,) uint32 -> the same shape in float32."""
    a, b = words.astype(np.float64).reshape(-1, 2).T
    u1, u2 = (a + 1) / 2**32, b / 2**32
    r, angle = np.sqrt(-2 * np.log(u1)), 2 * np.pi * u2
    return np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1).astype(np.float32).reshape(-1)


def philox4x32(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Philox4x32-10 of each counter, (blocks, 4) uint32 -> the same shape; key: two 32-bit words."""
    c0, c1, c2, c3 = counter.astype(np.uint64).T
    for turn in range(_ROUNDS):
        k0, k1 = (np.uint64((k + turn * w) & 0xFFFFFFFF) for k, w in zip(key, _KEY_STEPS, strict=True))
        product0, product1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2  # 32 x 32 bits fit in 64
        c0, c1 = (product1 >> _SHIFT) ^ c1 ^ k0, product1 & _MASK
        c2, c3 = (product0 >> _SHIFT) ^ c3 ^ k1, product0 & _MASK
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def format_test_vectors() -> str:
    """The text of `noise_vectors.json`: 16 words and 16 normals of some seeds (strings: JSON has doubles)."""
    vectors = [
        {
            "seed": str(seed),
            "words": draw_words(seed, 4).tolist(),
            "normals": [float(str(x)) for x in start_noise(seed, (16,))],  # shortest digits of the float32
        }
        for seed in _VECTOR_SEEDS
    ]
    lines = ",\n".join(json.dumps(vector) for vector in vectors)
    return f'{{"generator": "philox4x32-10, box-muller", "vectors": [\n{lines}\n]}}\n'


def _require_seed(seed: int) -> None:
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**64:
        raise ConfigError(f"seed is {seed!r}, expected a whole number from 0 to {2**64 - 1}")


if __name__ == "__main__":
    sys.stdout.write(format_test_vectors())
