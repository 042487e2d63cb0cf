"""What the networks see of real photos, written once: `kind-train statistics`.

Photos are decoded part by part and never kept: a file holds mean and covariance of each network's features, and the
features of `keep` photos drawn evenly from all, for precision and recall. Memory is that of these and of one part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from kind_core.classes import ClassInfo, read_class
from kind_core.errors import ClassNameError, DataError, ResultsError
from kind_core.files.json_files import parse_json
from kind_core.files.staging import file_kind
from kind_core.files.weight_files import is_pointer
from kind_train.data.photo_set import PhotoStream
from kind_train.display import Update, ignore_progress
from kind_train.evaluate.frechet import Moments, MomentSums
from kind_train.evaluate.networks import FeatureNetwork

KEEP = 10_000
LOGITS = "logits"  # outputs are kept, but have no distance
_METADATA, _VERSION = "kind_statistics", 1
_HINT = "write it with kind-train statistics"
# all that comes of a file that `save_statistics` has not written
_MISFITS = (
    *(OSError, SafetensorError, ClassNameError),
    *(ArithmeticError, AttributeError, LookupError, TypeError, ValueError),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenBy:
    """Which network saw the photos, and under which names its features lie."""

    name: str
    sha256: str
    features: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RealStatistics:
    """`moments` and `rows` by (network, feature); rows (k, d) float32 are of the photos of `labels` (k,).

    `photos_sha256` is that of all pixels in order; `counts` photos of each of `classes` were seen at `size`.
    """

    classes: tuple[ClassInfo, ...]
    counts: tuple[int, ...]
    size: int
    photos_sha256: str
    networks: tuple[SeenBy, ...]
    labels: NDArray[np.int64]
    moments: Mapping[tuple[str, str], Moments]
    rows: Mapping[tuple[str, str], NDArray[np.float32]]

    def require_photos(self, classes: Sequence[ClassInfo], size: int, where: object) -> None:
        """Raise DataError where these are statistics of other classes, or of photos of another size."""
        ours, theirs = {info.id for info in self.classes}, {info.id for info in classes}
        if ours != theirs:
            odd = sorted(ours ^ theirs)[0]
            side = "they lack but are asked for" if odd in theirs else "they have that are not asked for"
            raise DataError(
                f"{where} holds statistics of other photos: {len(self.classes)} classes, {odd!r} among those {side}",
                f"write those of these classes: kind-train statistics --classes {','.join(sorted(theirs))[:200]}",
            )
        if size != self.size:
            raise DataError(
                f"{where} holds statistics of photos at {self.size} x {self.size}, the pictures are {size} x {size}",
                f"write them again with --size {size}",
            )

    def require_networks(self, networks: Sequence[FeatureNetwork], where: object) -> None:
        """Raise DataError where one of the networks did not see the photos, or another one of its name did."""
        known = {one.name: one.sha256 for one in self.networks}
        for network in networks:
            if known.get(network.name) != network.sha256:
                seen = ", ".join(f"{one.name} ({one.sha256[:8]})" for one in self.networks)
                raise DataError(
                    f"{where} was seen by {seen}, not by {network.name} ({network.sha256[:8]})",
                    "write it with the same --classifier, --inception-weights and --dinov2",
                )


def collect_statistics(
    photos: PhotoStream,
    networks: Sequence[FeatureNetwork],
    *,
    keep: int = KEEP,
    seed: int = 0,
    progress: Update = ignore_progress,
) -> RealStatistics:
    """See all photos once; raises DataError for fewer than two."""
    sums: dict[tuple[str, str], MomentSums] = {}
    kept = _Reservoir(keep, seed)
    counts, digest, done, size = np.zeros(len(photos.classes), int), hashlib.sha256(), 0, 0
    for images, labels in photos.parts():
        seen = [network.observe(images) for network in networks]
        for network, observed in zip(networks, seen, strict=True):
            for name in observed.keys() - {LOGITS}:
                sums.setdefault((network.name, name), MomentSums()).add(observed[name])
        kept.offer(
            labels, {(n.name, name): v for n, one in zip(networks, seen, strict=True) for name, v in one.items()}
        )
        digest.update(images.tobytes())
        counts += np.bincount(labels, minlength=len(counts))
        done, size = done + len(images), images.shape[1]
        progress(done, photos.total, "")
    if done < 2:
        raise DataError(f"there is {done} photo, expected 2 or more", "give more photos")
    names = {n.name: tuple(sorted(k for m, k in kept.rows if m == n.name)) for n in networks}
    return RealStatistics(
        classes=photos.classes,
        counts=tuple(counts.tolist()),
        size=size,
        photos_sha256=digest.hexdigest(),
        networks=tuple(SeenBy(name=n.name, sha256=n.sha256, features=names[n.name]) for n in networks),
        labels=kept.labels,
        moments={key: one.moments() for key, one in sums.items()},
        rows={key: rows.astype(np.float32) for key, rows in kept.rows.items()},
    )


class _Reservoir:
    """An even sample of `keep` of all photos that are offered, whatever their number (Vitter's algorithm R)."""

    def __init__(self, keep: int, seed: int) -> None:
        self._keep, self._seen = keep, 0
        self._rng = np.random.default_rng(seed)
        self.labels = np.zeros(0, np.int64)
        self.rows: dict[tuple[str, str], NDArray[Any]] = {}

    def offer(self, labels: NDArray[Any], rows: Mapping[tuple[str, str], NDArray[Any]]) -> None:
        free = min(len(labels), self._keep - len(self.labels))
        if free:
            self.labels = np.concatenate([self.labels, labels[:free]])
            for key, values in rows.items():
                own = self.rows.get(key, values[:0])
                self.rows[key] = np.concatenate([own, values[:free]])
        for index in range(free, len(labels)):
            place = int(self._rng.integers(self._seen + index + 1))
            if place < self._keep:
                self.labels[place] = labels[index]
                for key, values in rows.items():
                    self.rows[key][place] = values[index]
        self._seen += len(labels)


def save_statistics(file: Path, statistics: RealStatistics) -> None:
    """One safetensors file, what it is of in its metadata."""
    tensors: dict[str, NDArray[Any]] = {"labels": statistics.labels}
    for (network, feature), moments in statistics.moments.items():
        tensors[f"{network}/{feature}/mean"] = moments.mean
        tensors[f"{network}/{feature}/covariance"] = moments.covariance
    for (network, feature), rows in statistics.rows.items():
        tensors[f"{network}/{feature}/rows"] = rows
    about = {
        "version": _VERSION,
        "classes": [asdict(info) for info in statistics.classes],
        "counts": statistics.counts,
        "size": statistics.size,
        "photos_sha256": statistics.photos_sha256,
        "networks": [asdict(one) for one in statistics.networks],
    }
    contiguous = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in tensors.items()}
    save_file(contiguous, file, {_METADATA: json.dumps(about)})


def read_statistics(file: Path) -> RealStatistics:
    """What `save_statistics` wrote; raises ResultsError for any other file."""
    try:
        if is_pointer(file):
            raise ResultsError(f"{file} is a Git LFS pointer, not the data", "git lfs pull brings it")
        with safe_open(file, "np") as opened:
            text = (opened.metadata() or {}).get(_METADATA)
            if text is None:
                raise ResultsError(f"{file} holds no statistics of photos: its metadata says nothing of them", _HINT)
            return _build(parse_json(text), opened)
    except _MISFITS as error:
        reason = " ".join(str(error).split())
        raise ResultsError(f"{file} holds no statistics of photos that can be read: {reason}", _HINT) from error


def _build(about: Any, opened: Any) -> RealStatistics:
    if about["version"] != _VERSION:
        raise ValueError(f"version is {about['version']!r}, expected {_VERSION}")
    networks = tuple(
        SeenBy(name=n["name"], sha256=n["sha256"], features=tuple(n["features"])) for n in about["networks"]
    )
    keys = [(one.name, feature) for one in networks for feature in one.features]
    rows = {key: opened.get_tensor(f"{key[0]}/{key[1]}/rows") for key in keys}
    counts = tuple(map(int, about["counts"]))
    moments = {}
    for key in keys:
        if key[1] != LOGITS:
            mean, covariance = (opened.get_tensor(f"{key[0]}/{key[1]}/{part}") for part in ("mean", "covariance"))
            if not covariance.shape == 2 * mean.shape == 2 * rows[key].shape[1:]:
                raise ValueError(f"the shapes of {key[0]}/{key[1]} do not fit")
            moments[key] = Moments(n=sum(counts), mean=mean, covariance=covariance)
    return RealStatistics(
        classes=tuple(map(read_class, about["classes"])),
        counts=counts,
        size=int(about["size"]),
        photos_sha256=str(about["photos_sha256"]),
        networks=networks,
        labels=opened.get_tensor("labels"),
        moments=moments,
        rows=rows,
    )


STATISTICS = file_kind("statistics of photos", read_statistics)
