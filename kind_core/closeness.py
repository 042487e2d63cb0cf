"""How close two arrays are, as gates, golden data and tests on devices say it."""

from __future__ import annotations

import math

import numpy as np

MAX_DB = 200.0


def psnr_db(reference: np.ndarray, actual: np.ndarray, peak: float | None = None) -> float:
    """Peak signal-to-noise ratio; 200 for equality, -200 for NaN or infinity in either.

    `peak` is the known range, 1 of a picture; without one it is the reference's own, as latents have no other.
    """
    if not (np.isfinite(reference).all() and np.isfinite(actual).all()):
        return -MAX_DB
    peak = float(reference.max() - reference.min()) if peak is None else peak
    error = float(np.sqrt(np.mean((reference.astype(np.float64) - actual) ** 2)))
    if error == 0:
        return MAX_DB
    return max(-MAX_DB, min(MAX_DB, 20 * math.log10(peak / error))) if peak else -MAX_DB
