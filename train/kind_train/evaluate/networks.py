"""The networks that published figures are taken with: their weights are given or cached, never downloaded.

Each one sees the same pictures and photos as the classifier, n of each kind, and returns its figures by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kind_core.errors import ConfigError, TargetError
from kind_core.files.weight_files import POINTER, is_pointer
from kind_train.evaluate.classification import wilson_interval
from kind_train.evaluate.frechet import Rows, compare_frechet, real_floor
from kind_train.evaluate.neighbours import measure_coverage

# What an option says to leave a network out though its weights are cached.
NONE = "none"
# Published Frechet distances are taken on this many pictures.
PUBLISHED_COUNT = 50_000
# A replicate of a Frechet distance costs about 2 n d^2: more rows than this make it seconds, and need fewer of them.
_CHEAP_REPLICATE = 1e10
LEVEL = 0.95
_NUM_REPLICATES, _FEW_REPLICATES = 100, 25

Observed = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A figure and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One figure of the generated pictures, with that of real photos beside it.

    generated:  of the pictures, against held-out photos where the figure compares
    real:       of training photos against held-out ones at the same n, the best that is to be had; of a figure
                that compares nothing, that of the held-out photos
    n:          pictures, held-out photos and training photos, each
    dimensions: features a row
    level:      of the intervals
    interval:   what the intervals are
    network:    what saw the pictures
    sha256:     of its weights
    note:       what to mind when reading the figure, or nothing
    """

    generated: Estimate
    real: Estimate
    n: int
    dimensions: int
    level: float
    interval: str
    network: str
    sha256: str
    note: str = ""


class FeatureNetwork(Protocol):
    """Sees pictures, and makes figures of what it saw. `name` and `sha256` go into the report."""

    name: str
    sha256: str

    def observe(self, images: NDArray[np.uint8]) -> Observed:
        """Features by name, a row for each of the uint8 RGB images (N, H, W, 3)."""

    def compare(self, generated: Observed, held_out: Observed, training: Observed) -> dict[str, Figure]:
        """Figures by the names that they have in a report."""


def open_networks(inception_weights: str | None, dinov2: str | None, device: str = "cpu") -> tuple[FeatureNetwork, ...]:
    """The networks whose weights are given; of those not given, the cached ones whose package is installed.

    `NONE` leaves a network out in any case. They run on `device`.
    """
    from kind_train.evaluate.dinov2 import DinoV2, find_dinov2
    from kind_train.evaluate.inception import InceptionV3, find_inception_weights

    networks: list[FeatureNetwork] = []
    choices: tuple[tuple[str | None, Callable[[], Path | None], Callable[..., FeatureNetwork]], ...] = (
        (inception_weights, find_inception_weights, InceptionV3),
        (dinov2, find_dinov2, DinoV2),
    )
    for given, find, load in choices:
        if given == NONE:
            continue
        path = find() if given is None else Path(given).expanduser()
        if path is not None:
            networks.append(load(path, device=device))
    return tuple(networks)


def make_figure(
    network: FeatureNetwork, rows: Rows, estimates: Iterable[Estimate], interval: str, note: str = ""
) -> Figure:
    """A figure of what `network` saw, a row for each of the pictures: the estimates are of these and of real photos."""
    generated, real = estimates
    return Figure(
        generated=generated,
        real=real,
        n=len(rows),
        dimensions=rows.shape[1],
        level=LEVEL,
        interval=interval,
        network=network.name,
        sha256=network.sha256,
        note=note,
    )


def compare_sets(network: FeatureNetwork, generated: Rows, held_out: Rows, training: Rows, *, note: str = "") -> Figure:
    """Frechet distance of `generated` to `held_out`, and its floor, at equal n."""
    n, dimensions = generated.shape
    num_replicates = _NUM_REPLICATES if n * dimensions**2 < _CHEAP_REPLICATE else _FEW_REPLICATES
    found = (
        compare_frechet(generated, held_out, num_replicates=num_replicates),
        real_floor(training, held_out, n=n, num_replicates=num_replicates),
    )
    estimates = (Estimate(value=one.distance, low=one.low, high=one.high) for one in found)
    note = "; ".join(filter(None, (note, _warn_of_bias(n, dimensions))))
    return make_figure(network, generated, estimates, f"bootstrap, {num_replicates} replicates", note)


def compare_coverage(
    network: FeatureNetwork, prefix: str, generated: Rows, held_out: Rows, training: Rows, *, note: str = ""
) -> dict[str, Figure]:
    """Precision and recall of `generated` against `held_out`, and those of `training`, at equal n."""
    ours = measure_coverage(generated, held_out)
    floor = measure_coverage(training, held_out, n=ours.n)
    figures = {}
    for name in ("precision", "recall"):
        estimates = (estimate_share(round(getattr(one, name) * one.n), one.n) for one in (ours, floor))
        interval = "Wilson, at the measured manifolds"
        figures[f"{prefix}_{name}"] = make_figure(network, generated, estimates, interval, note)
    return figures


def estimate_share(hits: int, n: int) -> Estimate:
    """`hits` of `n` with Wilson's interval."""
    low, high = wilson_interval(hits, n, level=LEVEL)
    return Estimate(value=hits / n, low=low, high=high)


def refuse_import(package: str, error: Exception) -> TargetError:
    """The error for a package of the extra `fid` that is missing, or that cannot be imported."""
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        return TargetError(
            f"{package} is not usable, {error.name!r} is not installed", "pip install 'kind-diffusion[fid]'"
        )
    import torch

    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    # as a torchvision does whose operators were built for another torch
    return TargetError(
        f"{package} cannot be imported beside torch {torch.__version__}: {cause}",
        "install torchvision from the index that this torch is from",
    )


# Where the files of networks come from, for errors: as torch-fidelity's download is called in torch hub's cache, and as
# pytorch-fid's.
INCEPTION_FILES = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")
INCEPTION_HINT = f"get {INCEPTION_FILES[0]} from the releases of github.com/toshas/torch-fidelity"
CLASSIFIER_HINT = "train one: kind-train classifier --data held-out/ --output judge.safetensors"


def require_file(path: Path, option: str, hint: str) -> Path:
    """`path`, which an option names. Raises ConfigError when no file is there, or a pointer to it."""
    if not path.is_file():
        raise ConfigError(f"{option}: there is no file {path}", hint)
    if is_pointer(path):
        raise ConfigError(f"{option}: {path} {POINTER}", hint)
    return path


def _warn_of_bias(n: int, dimensions: int) -> str:
    if n >= PUBLISHED_COUNT:
        return ""
    singular = f", with singular covariances of {dimensions} features" if n <= dimensions else ""
    return (
        f"biased upward at n = {n}{singular}: compare at equal n and with the real photos beside it, "
        f"not with published figures at n = {PUBLISHED_COUNT}"
    )


def as_report(metrics: dict[str, Figure]) -> dict[str, object]:
    """JSON values of figures; a note that says nothing is left out."""
    from dataclasses import asdict

    return {
        name: {key: value for key, value in asdict(figure).items() if value != ""} for name, figure in metrics.items()
    }
