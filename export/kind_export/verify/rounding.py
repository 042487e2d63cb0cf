"""What a sampler's number format can show of a step: no gate may ask for more.

Late in a long run, or where latents are large, a step changes them by less than the format's spacing at their size. A
step rounds what it takes of the latents, their coefficient, the product and the sum, each by half a spacing at most.
"""

from __future__ import annotations

import numpy as np

from kind_core.closeness import psnr_db

ROUNDINGS = 4  # of the latents in a step


def most_rounding(latents: np.ndarray, half_roundings: int) -> np.ndarray:
    """How far each number of `latents` may be off after a right step, which rounds them in fp32, and as often as
    `half_roundings` to fp16."""
    shares = ((half_roundings, np.float16), (ROUNDINGS, np.float32))
    share = sum(count * float(np.finfo(dtype).eps) / 2 for count, dtype in shares)
    return np.asarray(share * np.abs(latents.astype(np.float64)))


def showable_db(difference: np.ndarray, rounding: np.ndarray) -> float:
    """The PSNR of a difference of latents each of whose numbers is off by `rounding`: a right step has it or more."""
    return psnr_db(difference, difference + rounding)
