"""What a classifier makes of generated images: how many are of the asked class, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Below this variance the probabilities are equal up to rounding, and a kurtosis of rounding says nothing.
_NO_VARIANCE = 1e-20


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedClassShare:
    """The share of images whose most likely class is the asked one, with its Wilson interval.

    With z the normal quantile of (1 + level) / 2:

    share:      num_asked / num_images
    low, high:  (share + z^2 / 2n -+ z sqrt(share (1 - share) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    num_asked:  images with argmax(logits) = the asked index
    num_images: all images, n above
    level:      confidence of the interval
    """

    share: float
    low: float
    high: float
    num_asked: int
    num_images: int
    level: float


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputStatistics:
    """Entropy, variance and kurtosis of the classifier's output, means over the images (KIND, table 5).

    With p the K softmax probabilities of an image, m their mean 1 / K and v their variance:

    entropy:    mean of -sum_k p_k ln p_k, in nats: 0 for a sure output, ln K for a uniform one
    variance:   mean of v = sum_k (p_k - m)^2 / K: (K - 1) / K^2 for a sure output, 0 for a uniform one
    kurtosis:   mean of sum_k (p_k - m)^4 / (K v^2) - 3: 995.0 for a sure output of K = 1000; set to 0 for a
                uniform one
    num_images: images

    The paper prints neither its definitions nor its classifier: these are numpy's `var` and scipy's
    `kurtosis` with their defaults. Compare with the same classifier's figures on real photos of the classes.
    """

    entropy: float
    variance: float
    kurtosis: float
    num_images: int


def measure_asked_class_share(logits: NDArray[Any], asked: int, *, level: float = 0.95) -> AskedClassShare:
    """The share of images that the classifier calls class `asked`; logits (N, K)."""
    _check_logits(logits)
    if not 0 <= asked < logits.shape[1]:
        raise ValueError(f"asked class is {asked}, expected 0 to {logits.shape[1] - 1}")
    num_asked = int(np.sum(logits.argmax(1) == asked))
    low, high = wilson_interval(num_asked, len(logits), level=level)
    return AskedClassShare(
        share=num_asked / len(logits), low=low, high=high, num_asked=num_asked, num_images=len(logits), level=level
    )


def count_asked(logits: NDArray[Any], labels: NDArray[np.int64], outputs: Sequence[int | None]) -> tuple[int, int]:
    """(images whose most likely class is the one that `labels` asked for, images of classes that the judge knows).

    logits: (N, K); outputs: the judge's output for each label, None for a class that it does not know.
    """
    asked = np.array([-1 if output is None else output for output in outputs])[labels]
    known = asked >= 0
    return int((logits.argmax(1) == asked)[known].sum()), int(known.sum())


def wilson_interval(num_hits: int, num_trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """(low, high) of a binomial share; stays within [0, 1] and has width at 0 and 1, unlike the normal one.

    E. B. Wilson, Probable Inference, 1927.
    """
    if not 0 <= num_hits <= num_trials or num_trials == 0 or not 0 < level < 1:
        raise ValueError(f"{num_hits} hits of {num_trials} trials at level {level}, out of range")
    z_squared = NormalDist().inv_cdf((1 + level) / 2) ** 2
    share = num_hits / num_trials
    centre = share + z_squared / (2 * num_trials)
    half = (z_squared * (share * (1 - share) + z_squared / (4 * num_trials)) / num_trials) ** 0.5
    scale = 1 + z_squared / num_trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def measure_output_statistics(logits: NDArray[Any]) -> OutputStatistics:
    """Entropy, variance and kurtosis of softmax(logits), logits (N, K)."""
    _check_logits(logits)
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    p = np.exp(log_p)
    deviation = p - p.mean(axis=1, keepdims=True)
    variance = np.mean(deviation**2, axis=1)
    fourth = np.mean(deviation**4, axis=1)
    varies = variance > _NO_VARIANCE
    kurtosis = np.where(varies, fourth / np.where(varies, variance, 1) ** 2 - 3, 0)
    return OutputStatistics(
        entropy=float(np.mean(-np.sum(p * log_p, axis=1))),
        variance=float(variance.mean()),
        kurtosis=float(kurtosis.mean()),
        num_images=len(logits),
    )


def _check_logits(logits: NDArray[Any]) -> None:
    if logits.ndim != 2 or 0 in logits.shape:
        raise ValueError(f"logits are {logits.shape}, expected (N, K), neither of them zero")
    if not np.isfinite(logits).all():
        raise ValueError("logits hold NaN or infinity")
