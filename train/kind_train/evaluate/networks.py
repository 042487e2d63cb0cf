"""The networks that published figures are taken with: their weights are given or cached, never downloaded.

Each one sees the same pictures and photos as the classifier, n of each kind, and returns its figures by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kind_core.errors import ConfigError, TargetError
from kind_core.files.weight_files import POINTER, is_pointer
from kind_train.evaluate.classification import wilson_interval
from kind_train.evaluate.frechet import FrechetComparison, Rows, compare_frechet, real_floor
from kind_train.evaluate.manifold import ManifoldCoverage, measure_coverage

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
        ...

    def compare(self, generated: Observed, held_out: Observed, training: Observed) -> dict[str, Figure]:
        """Figures by the names that they have in a report."""
        ...


class Observer:
    """Shows networks `n` of `total` images, which come in parts: the sample that all figures are taken on."""

    def __init__(self, networks: Sequence[FeatureNetwork], n: int, total: int, *, seed: int = 0) -> None:
        self._networks = networks
        self._chosen = np.zeros(total, bool)
        self._chosen[np.random.default_rng(seed).choice(total, n, replace=False)] = True
        self._position = 0
        self._parts: list[list[Observed]] = [[] for _ in networks]

    def show(self, images: NDArray[np.uint8], label: int) -> None:
        """The next images of the set, all of one label."""
        self.add(self.observe(images[self.choose(len(images))]), label)

    def choose(self, count: int) -> NDArray[np.bool_]:
        """Which of the next `count` images of the set are in the sample."""
        self._position += count
        return self._chosen[self._position - count : self._position]

    def observe(self, images: NDArray[np.uint8]) -> list[Observed]:
        """What each network sees of some images of the sample; nothing of none."""
        return [network.observe(images) for network in self._networks] if len(images) else []

    def add(self, seen: Sequence[Observed], label: int) -> None:
        """Take what `observe` returned of the next images of the sample, all of one label."""
        for one, parts in zip(seen, self._parts, strict=bool(seen)):
            rows = len(next(iter(one.values())))
            parts.append({**one, "label": np.full(rows, label, np.float32)})

    def observed(self) -> list[Observed]:
        """What each network saw of the whole set, with the `label` (N,) of every image."""
        assert self._position == len(self._chosen), f"shown {self._position} of {len(self._chosen)} images"
        return [{name: np.concatenate([part[name] for part in parts]) for name in parts[0]} for parts in self._parts]


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


def compare_sets(network: FeatureNetwork, generated: Rows, held_out: Rows, training: Rows, *, note: str = "") -> Figure:
    """Frechet distance of `generated` to `held_out`, and its floor, at equal n."""
    n, dimensions = len(generated), generated.shape[1]
    num_replicates = _NUM_REPLICATES if n * dimensions**2 < _CHEAP_REPLICATE else _FEW_REPLICATES
    distance = compare_frechet(generated, held_out, num_replicates=num_replicates)
    floor = real_floor(training, held_out, n=n, num_replicates=num_replicates)
    return Figure(
        generated=_estimate(distance),
        real=_estimate(floor),
        n=n,
        dimensions=dimensions,
        level=distance.level,
        interval=f"bootstrap, {num_replicates} replicates",
        network=network.name,
        sha256=network.sha256,
        note="; ".join(filter(None, (note, _warn_of_bias(n, dimensions)))),
    )


def compare_coverage(
    network: FeatureNetwork, prefix: str, generated: Rows, held_out: Rows, training: Rows, *, note: str = ""
) -> dict[str, Figure]:
    """Precision and recall of `generated` against `held_out`, and those of `training`, at equal n."""
    ours = measure_coverage(generated, held_out)
    floor = measure_coverage(training, held_out, n=ours.n)
    return {
        f"{prefix}_{name}": Figure(
            generated=_share(ours, name),
            real=_share(floor, name),
            n=len(generated),
            dimensions=generated.shape[1],
            level=LEVEL,
            interval="Wilson, at the measured manifolds",
            network=network.name,
            sha256=network.sha256,
            note=note,
        )
        for name in ("precision", "recall")
    }


def _share(coverage: ManifoldCoverage, name: str) -> Estimate:
    value = float(getattr(coverage, name))
    low, high = wilson_interval(round(value * coverage.n), coverage.n, level=LEVEL)
    return Estimate(value=value, low=low, high=high)


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


# Where the files of networks come from, for errors.
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


def _estimate(comparison: FrechetComparison) -> Estimate:
    return Estimate(value=comparison.distance, low=comparison.low, high=comparison.high)


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
