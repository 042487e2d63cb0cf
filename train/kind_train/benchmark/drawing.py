"""A suite that only draws: its cells are the rows of a table, pictures drawn with and without label and tailor.

`kind-train benchmark SUITE --methods ROW --output DIR --resume` makes one alone, so that any queue can run many beside
each other; tables and pictures are written from those that are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kind_core.checkpoint import hash_checkpoint, read_config
from kind_core.classes import ClassInfo
from kind_core.errors import ConfigError, DataError
from kind_core.noise import picture_seed, start_noise
from kind_train.benchmark.cells import RowFigures, cell_file
from kind_train.benchmark.options import BenchmarkOptions
from kind_train.benchmark.results import Results, Strip, Table, leave_out, open_folder, show_figure, write_results
from kind_train.benchmark.suite import Row, Suite
from kind_train.data.batches import spread
from kind_train.data.photo_set import Tell, ignore, load_photos
from kind_train.evaluate.against import Measured, measure_asked, measure_outputs
from kind_train.evaluate.judges import InceptionJudge, Judge, open_judge
from kind_train.evaluate.networks import NONE
from kind_train.evaluate.pictures import NULL, CheckpointDrawer, DrawSettings
from kind_train.seen_files import opened_arrays, write_arrays

_NEEDS = {"photos": "--data", "dense": "--dense"}  # of what a row is drawn from
_COLUMNS: tuple[Literal["entropy", "variance", "kurtosis"], ...] = ("entropy", "variance", "kurtosis")
_SHARES: tuple[Literal["called_as_asked", "called_as_tailor"], ...] = ("called_as_asked", "called_as_tailor")
_DIGITS = {"entropy": ".3f", "variance": ".3e", "kurtosis": ".1f", "called_as_asked": ".0%", "called_as_tailor": ".0%"}


def run_suite(suite: Suite, options: BenchmarkOptions, rows: Sequence[Row], tell: Tell = ignore) -> list[RowFigures]:
    """Make `rows`, or the row of `options.cell`, where they are missing.

    Returns every result that the folder then holds, in the order of the suite. Inception judges where it is given.
    """
    assert options.checkpoint is not None
    assert options.count is not None
    kept = leave_out(rows, lambda row: _NEEDS.get(row.source), options, tell)
    classes = read_config(options.checkpoint).classes
    judge: Judge = (
        open_judge(options.classifier, options.device)
        if options.inception_weights in (None, NONE)
        else InceptionJudge(Path(str(options.inception_weights)), device=options.device)
    )
    identity = {
        "suite": suite.name,
        "scale": options.scale,
        "checkpoint": hash_checkpoint(options.checkpoint),
        "judge": judge.sha256,
        "dense": "" if options.dense is None else hash_checkpoint(options.dense),
        "data": options.data or "",
        "count": options.count,
        "seed": options.seed,
    }
    open_folder(options.output, identity, resume=options.goes_on)
    for row in kept:
        file = cell_file(options.output, row.name)
        if not file.exists():
            tell(f"{row.title} ...")
            figures, pictures, logits = run_row(row, options, judge, tell)
            about = {"method": row.name, "title": row.title, **figures}
            write_arrays(file, about, {"pictures": pictures, "logits": logits})
    return _write_rows(suite, options.output, classes)


def run_row(
    row: Row, options: BenchmarkOptions, judge: Judge, tell: Tell = ignore
) -> tuple[dict[str, object], NDArray[np.uint8], NDArray[np.float32]]:
    """The figures of a row, its first picture of every class, and all logits (N, K).

    `tell` gets the lines about photos that are not read.
    """
    outputs, firsts, logits = [], [], []
    for output, pictures in _draw(row, options, judge, tell):
        outputs.append(output)
        firsts.append(pictures[0])
        logits.append(judge.classify(pictures).logits)
    every = np.concatenate(logits)
    figures: dict[str, object] = {name: asdict(one) for name, one in measure_outputs(every, seed=options.seed).items()}
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


def _draw(
    row: Row, options: BenchmarkOptions, judge: Judge, tell: Tell
) -> Iterator[tuple[int | None, NDArray[np.uint8]]]:
    """(the judge's output for a class, pictures of it), class by class."""
    assert options.checkpoint is not None
    assert options.count is not None
    count, settings = options.count, DrawSettings(seed=options.seed, device=options.device)
    drawer = CheckpointDrawer(options.checkpoint, (), settings)
    classes, size = drawer.classes, drawer.size
    outputs = [judge.index(info) for info in classes]
    if row.source == "photos":
        photos = load_photos(str(options.data), size, classes=classes, tell=tell)
        for label, output in enumerate(outputs):
            shown = photos.images[spread((photos.labels == label).nonzero()[:, 0], count)]
            if len(shown) < 2:
                raise DataError(
                    f"{options.data} holds {len(shown)} photos of {classes[label].name!r}, expected 2 or more"
                )
            yield output, shown.permute(0, 2, 3, 1).contiguous().numpy()
        return
    if row.source == "dense":
        drawer = CheckpointDrawer(Path(str(options.dense)), [info.id for info in classes], settings)
        if not drawer.checkpoint.config.dit.is_dense:
            raise ConfigError(
                f"{options.dense} is decomposed, expected a dense model", "train one: --preset dit-sample"
            )
    if row.source == "model" and row.label is None and row.gate is None:
        # it knows no class: the same pictures for each of them would be fewer than are counted
        every = drawer.draw(NULL, NULL, count * len(classes))
        yield from zip(outputs, np.split(every, len(classes)), strict=True)
        return
    for label, output in enumerate(outputs):
        if row.source == "noise":
            yield output, _draw_noise(label * count, count, size, options.seed)
        else:
            own, gate = (NULL if step is None else (label + step) % len(classes) for step in (row.label, row.gate))
            yield output, drawer.draw(own, gate, count)


def _draw_noise(first: int, count: int, size: int, seed: int) -> NDArray[np.uint8]:
    """Standard normals as pixels, of `count` seeds from the one of picture `first`."""
    seeds = [picture_seed(seed, first + i) for i in range(count)]
    noise = np.stack([start_noise(seed, (size, size, 3)) for seed in seeds])
    return np.asarray(np.rint(np.clip(noise / 2 + 0.5, 0, 1) * 255), np.uint8)


def _write_rows(suite: Suite, output: Path, classes: Sequence[ClassInfo]) -> list[RowFigures]:
    """All files that the folder shows, of the cells that are there; returns their figures."""
    results: list[RowFigures] = []
    strips: list[Strip] = []
    for row in suite.arms:
        if (file := cell_file(output, row.name)).exists():
            with opened_arrays(file) as (figures, arrays):
                results.append(figures)
                strips.append((row.name, row.title, list(arrays["pictures"])))
    judges = ", ".join(sorted({result["judge"] for result in results}))
    notes = [
        f"Judged by {judges}; {len(classes)} classes; means over the pictures with 95 % intervals, the same start "
        "noise in every row."
    ]
    if suite.paper:
        notes.append("The paper's figures are of Inception's logits on ImageNet and compare by order alone.")
    write_results(
        output,
        Results(
            title=suite.title,
            notes=notes,
            lines=results,
            tables=[_make_table(suite, results)],
            strips=strips,
            columns=[info.name for info in classes],
        ),
    )
    return results


def _make_table(suite: Suite, results: Sequence[RowFigures]) -> Table:
    """Our figures with 95 % intervals, and the paper's beside them."""
    headings: tuple[str, ...] = ("row", "n", "called as the label's class", "as the tailor's", *_COLUMNS)
    rows = []
    for result in results:
        paper = suite.paper.get(result["method"])
        found = {name: Measured(**result[name]) for name in (*_SHARES, *_COLUMNS) if name in result}
        cells = [show_figure(found.get(name), _DIGITS[name]) for name in (*_SHARES, *_COLUMNS)]
        if suite.paper:
            values = () if paper is None else zip(_COLUMNS, paper, strict=True)
            cells.append(", ".join(f"{value:{_DIGITS[name]}}" for name, value in values))
        rows.append((result["title"], str(result["num_images"]), *cells))
    if suite.paper:
        headings = (*headings, "paper: entropy, variance, kurtosis")
    return Table(title="", headings=headings, rows=rows)
