"""What a classifier makes of pictures drawn with and without label and tailor: one row of table 5."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kind_core.errors import ConfigError, DataError
from kind_core.noise import picture_seed, start_noise
from kind_train.benchmark.suite import Row
from kind_train.data.batches import spread
from kind_train.data.photo_set import Tell, ignore, load_photos
from kind_train.evaluate.against import measure_asked, measure_outputs
from kind_train.evaluate.judges import Judge
from kind_train.evaluate.pictures import NULL, CheckpointDrawer, DrawSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is drawn and shown: `count` pictures a class of `checkpoint`, the dense model, held-out photos."""

    checkpoint: Path
    dense: Path | None = None
    data: str | None = None
    count: int = 24
    seed: int = 0
    device: str = "cpu"


def run_row(
    row: Row, request: Request, judge: Judge, tell: Tell = ignore
) -> tuple[dict[str, object], NDArray[np.uint8], NDArray[np.float32]]:
    """The figures of a row, its first picture of every class, and all logits (N, K).

    `tell` gets the lines about photos that are not read.
    """
    outputs, firsts, logits = [], [], []
    for output, pictures in _draw(row, request, judge, tell):
        outputs.append(output)
        firsts.append(pictures[0])
        logits.append(judge.classify(pictures).logits)
    every = np.concatenate(logits)
    figures: dict[str, object] = {name: asdict(one) for name, one in measure_outputs(every, seed=request.seed).items()}
    figures |= {"num_images": len(every), "judge": judge.name}
    figures |= _share("called_as_asked", logits, outputs)
    if row.gate:
        figures |= _share("called_as_tailor", logits, outputs[row.gate :] + outputs[: row.gate])
    return figures, np.stack(firsts), every


def _share(name: str, logits: Sequence[NDArray[np.float32]], outputs: Sequence[int | None]) -> dict[str, object]:
    """The share of the pictures of each class that the judge gives its output; nothing where it knows none of them."""
    labels = np.repeat(np.arange(len(logits)), [len(seen) for seen in logits])
    found = measure_asked(np.concatenate(logits), labels, outputs)
    return {} if found is None else {name: asdict(found)}


def _draw(row: Row, request: Request, judge: Judge, tell: Tell) -> Iterator[tuple[int | None, NDArray[np.uint8]]]:
    """(the judge's output for a class, pictures of it), class by class."""
    settings = DrawSettings(seed=request.seed, device=request.device)
    drawer = CheckpointDrawer(request.checkpoint, (), settings)
    classes, size = drawer.classes, drawer.size
    outputs = [judge.index(info) for info in classes]
    if row.source == "photos":
        photos = load_photos(str(request.data), size, classes=classes, tell=tell)
        for label, output in enumerate(outputs):
            shown = photos.images[spread((photos.labels == label).nonzero()[:, 0], request.count)]
            if len(shown) < 2:
                raise DataError(
                    f"{request.data} holds {len(shown)} photos of {classes[label].name!r}, expected 2 or more"
                )
            yield output, shown.permute(0, 2, 3, 1).contiguous().numpy()
        return
    if row.source == "dense":
        drawer = CheckpointDrawer(Path(str(request.dense)), [info.id for info in classes], settings)
        if not drawer.checkpoint.config.dit.is_dense:
            raise ConfigError(
                f"{request.dense} is decomposed, expected a dense model", "train one: --preset dit-sample"
            )
    if row.source == "model" and row.label is None and row.gate is None:
        # it knows no class: the same pictures for each of them would be fewer than are counted
        every = drawer.draw(NULL, NULL, request.count * len(classes))
        yield from zip(outputs, np.split(every, len(classes)), strict=True)
        return
    for label, output in enumerate(outputs):
        if row.source == "noise":
            yield output, _draw_noise(label, size, request)
        else:
            own, gate = (NULL if step is None else (label + step) % len(classes) for step in (row.label, row.gate))
            yield output, drawer.draw(own, gate, request.count)


def _draw_noise(label: int, size: int, request: Request) -> NDArray[np.uint8]:
    """Standard normals as pixels; another part of the stream for every class."""
    first = label * request.count
    seeds = [picture_seed(request.seed, first + i) for i in range(request.count)]
    noise = np.stack([start_noise(seed, (size, size, 3)) for seed in seeds])
    return np.asarray(np.rint(np.clip(noise / 2 + 0.5, 0, 1) * 255), np.uint8)
