"""What a classifier makes of pictures drawn with and without label and tailor: one row of table 5."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kind_core.errors import ConfigError, DataError
from kind_core.noise import picture_seed, start_noise
from kind_train.benchmark.suite import Row
from kind_train.data.photo_set import load_photos
from kind_train.evaluate.classification import measure_output_statistics, wilson_interval
from kind_train.evaluate.judges import Judge
from kind_train.evaluate.pictures import NULL, CheckpointDrawer, DrawSettings

_NUM_REPLICATES, _LEVEL = 1000, 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is drawn and shown: `count` pictures a class of `checkpoint`, the dense model, held-out photos."""

    checkpoint: Path
    dense: Path | None = None
    data: str | None = None
    count: int = 24
    seed: int = 0
    device: str = "cpu"


def lacks(row: Row, request: Request) -> str | None:
    """The option without which a row cannot be made; None where it can."""
    needed = {"photos": ("--data", request.data), "dense": ("--dense", request.dense)}
    option, value = needed.get(row.source, ("", ""))
    return option if value is None else None


def run_row(row: Row, request: Request, judge: Judge) -> tuple[dict[str, Any], NDArray[np.uint8], NDArray[np.float32]]:
    """The figures of a row, its first picture of every class, and all logits (N, K)."""
    logits, firsts, asked, hits = [], [], 0, 0
    for index, pictures in _draw(row, request, judge):
        seen = judge.classify(pictures).logits
        logits.append(seen)
        firsts.append(pictures[0])
        if index is not None:
            asked += len(seen)
            hits += int((seen.argmax(1) == index).sum())
    every = np.concatenate(logits)
    figures = _measure(every, request.seed) | {"num_images": len(every), "judge": judge.name}
    if asked:
        low, high = wilson_interval(hits, asked, level=_LEVEL)
        figures["called_as_asked"] = {"value": hits / asked, "low": low, "high": high}
    return figures, np.stack(firsts), every


def _draw(row: Row, request: Request, judge: Judge) -> Iterator[tuple[int | None, NDArray[np.uint8]]]:
    """(the judge's output for a class, pictures of it), class by class."""
    settings = DrawSettings(seed=request.seed, device=request.device)
    drawer = CheckpointDrawer(request.checkpoint, (), settings)
    classes, size = drawer.classes, drawer.size
    outputs = [judge.index(info) for info in classes]
    if row.source == "photos":
        photos = load_photos(str(request.data), size, classes=classes)
        for label, output in enumerate(outputs):
            own = photos.images[photos.labels == label][: request.count]
            if len(own) < 2:
                raise DataError(
                    f"{request.data} holds {len(own)} photos of {classes[label].name!r}, expected 2 or more"
                )
            yield output, own.permute(0, 2, 3, 1).contiguous().numpy()
        return
    if row.source == "dense":
        drawer = CheckpointDrawer(Path(str(request.dense)), [info.id for info in classes], settings)
        if not drawer.checkpoint.config.dit.is_dense:
            raise ConfigError(
                f"{request.dense} is decomposed, expected a dense model", "train one: --preset dit-sample"
            )
    for label, output in enumerate(outputs):
        if row.source == "noise":
            yield output, _draw_noise(label, size, request)
        else:
            pair = (label if row.has_label else NULL, label if row.has_gate else NULL)
            yield output, drawer.draw(*pair, request.count)


def _draw_noise(label: int, size: int, request: Request) -> NDArray[np.uint8]:
    """Standard normals as pixels; another part of the stream for every class."""
    first = label * request.count
    seeds = [picture_seed(request.seed, first + i) for i in range(request.count)]
    noise = np.stack([start_noise(seed, (size, size, 3)) for seed in seeds])
    return np.asarray(np.rint(np.clip(noise / 2 + 0.5, 0, 1) * 255), np.uint8)


def _measure(logits: NDArray[np.float32], seed: int) -> dict[str, Any]:
    """Means over the pictures with percentile intervals of a bootstrap over them."""
    each = [asdict(measure_output_statistics(one[None])) for one in logits]
    chance = np.random.default_rng(seed)
    draws = chance.integers(len(each), size=(_NUM_REPLICATES, len(each)))
    figures = {}
    for name in ("entropy", "variance", "kurtosis"):
        values = np.array([one[name] for one in each])
        low, high = np.quantile(values[draws].mean(1), [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        figures[name] = {"value": float(values.mean()), "low": float(low), "high": float(high)}
    return figures
