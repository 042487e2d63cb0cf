"""Pictures beside statistics of real photos that were written once: distances, precision and recall, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from kind_train.evaluate.classification import count_asked, measure_output_statistics
from kind_train.evaluate.frechet import Moments, compare_with_moments
from kind_train.evaluate.neighbours import measure_coverage
from kind_train.evaluate.networks import LEVEL, Observed, estimate_share

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
    observed: Observed, moments: Mapping[str, Moments], rows: Mapping[str, NDArray[np.float32]], *, seed: int = 0
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
            covered = measure_coverage(generated, rows[feature], seed=seed)
            prefix = "" if feature == "features" else "inception_"
            for name in ("precision", "recall"):
                figures[f"{prefix}{name}"] = _share(round(getattr(covered, name) * covered.n), covered.n)
    return figures


def _share(hits: int, n: int) -> Measured:
    return Measured(**asdict(estimate_share(hits, n)), n=n)


def measure_asked(
    logits: NDArray[np.float32], labels: NDArray[np.int64], outputs: Sequence[int | None]
) -> Measured | None:
    """How many pictures are called the class that `labels` asked for; None where the judge knows none of them."""
    hits, known = count_asked(logits, labels, outputs)
    return _share(hits, known) if known else None


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
