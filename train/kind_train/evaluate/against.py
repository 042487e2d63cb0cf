"""Pictures beside statistics of real photos that were written once: distances, precision and recall, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from kind_train.evaluate.classification import count_asked, measure_output_statistics, wilson_interval
from kind_train.evaluate.frechet import compare_with_moments
from kind_train.evaluate.manifold import measure_coverage
from kind_train.evaluate.moments import Moments
from kind_train.evaluate.networks import LEVEL, Observed

# What the distance on a feature is called: of the judge's own, of Inception-v3 and of DINOv2.
DISTANCES = {"features": "distance", "pooled": "fid", "spatial": "sfid", "token": "fdd"}
_COVERED = ("features", "pooled")  # on which precision and recall are taken
_FEW = 25  # replicates where one costs seconds
_CHEAP = 1e9


class FigureEntry(TypedDict):
    """`Measured` as files hold it."""

    value: float
    low: float
    high: float
    n: int
    n_real: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A figure with its 95 % interval, of `n` pictures, against `n_real` photos where it compares."""

    value: float
    low: float
    high: float
    n: int
    n_real: int | None = None

    def to_dict(self) -> FigureEntry:
        """As files hold it."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n, "n_real": self.n_real}


def measure_distances(
    observed: Observed,
    moments: Mapping[str, Moments],
    rows: Mapping[str, NDArray[np.float32]],
    *,
    seed: int = 0,
) -> dict[str, Measured]:
    """Of what one network saw: the distance on each of its features, and precision and recall where it has them.

    moments and rows are those of real photos, by feature.
    """
    figures = {}
    for feature, real in moments.items():
        generated = observed[feature]
        replicates = 100 if len(generated) * generated.shape[1] ** 2 < _CHEAP else _FEW
        found = compare_with_moments(generated, real, num_replicates=replicates, seed=seed)
        name = DISTANCES[feature]
        figures[name] = Measured(value=found.distance, low=found.low, high=found.high, n=found.n, n_real=real.n)
        if feature in _COVERED and min(len(generated), len(rows[feature])) > 3:
            prefix = "" if feature == "features" else "inception_"
            figures |= _cover(prefix, generated, rows[feature], seed)
    return figures


def _cover(prefix: str, generated: NDArray[np.float32], real: NDArray[np.float32], seed: int) -> dict[str, Measured]:
    covered = measure_coverage(generated, real, seed=seed)
    figures = {}
    for name in ("precision", "recall"):
        value = float(getattr(covered, name))
        figures[f"{prefix}{name}"] = share(round(value * covered.n), covered.n)
    return figures


def share(hits: int, n: int) -> Measured:
    """`hits` of `n` with Wilson's interval."""
    low, high = wilson_interval(hits, n, level=LEVEL)
    return Measured(value=hits / n, low=low, high=high, n=n)


def measure_asked(
    logits: NDArray[np.float32], labels: NDArray[np.int64], outputs: Sequence[int | None]
) -> Measured | None:
    """How many pictures are called the class that `labels` asked for; None where the judge knows none of them."""
    hits, known = count_asked(logits, labels, outputs)
    return share(hits, known) if known else None


def measure_outputs(logits: NDArray[np.float32], *, replicates: int = 1000, seed: int = 0) -> dict[str, Measured]:
    """Entropy, variance and kurtosis of the outputs: means over the pictures, percentiles of a bootstrap over them."""
    each = [measure_output_statistics(one[None]) for one in logits]
    draws = np.random.default_rng(seed).integers(len(each), size=(replicates, len(each)))
    figures = {}
    for name in ("entropy", "variance", "kurtosis"):
        values = np.array([getattr(one, name) for one in each])
        low, high = np.quantile(values[draws].mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        figures[name] = Measured(value=float(values.mean()), low=float(low), high=float(high), n=len(each))
    return figures
