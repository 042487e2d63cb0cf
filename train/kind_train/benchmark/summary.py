"""The tables of a training suite: every arm pooled over its tasks beside the paper's figures, and task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kind_train.benchmark.cell_files import CellFigures, OfWeights, PointFigures, opened_cell
from kind_train.benchmark.cells import Cell
from kind_train.benchmark.results import Results, Strip, Table
from kind_train.benchmark.suite import Arm, Scale, TrainingSuite
from kind_train.benchmark.tasks import Task
from kind_train.evaluate.against import FigureEntry, Measured, measure_distances
from kind_train.evaluate.moments import pool_moments
from kind_train.evaluate.statistics import LOGITS, RealStatistics

# Figures in the order of the table; lower is better for those that tell which of two is ahead.
_HEADINGS = {
    "called_as_asked": "called as asked",
    "fid": "FID",
    "sfid": "sFID",
    "fdd": "FDD",
    "distance": "distance",
    "precision": "precision",
    "recall": "recall",
    "inception_precision": "Inception precision",
    "inception_recall": "Inception recall",
    "tailor_norm": "tailor / learngene",
    "gradient_share": "gradient reaches",
    "tailor_gradient_share": "of tailors",
}
_WEIGHTS: tuple[OfWeights, ...] = ("tailor_norm", "gradient_share", "tailor_gradient_share")
_AHEAD_BY = ("fid", "fdd", "distance")
_SHARES = {"called_as_asked", "gradient_share", "tailor_gradient_share"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A cell as it lies in its file."""

    cell: Cell
    figures: CellFigures
    pictures: NDArray[np.uint8] | None
    seen: Mapping[tuple[str, str], NDArray[np.float32]]


def read_cell(cell: Cell, output: Path) -> Stored:
    """What `TrainingRunner.make` wrote."""
    with opened_cell(cell.file(output)) as (figures, arrays):
        pairs = {name: name.rpartition("/") for name in arrays if "/" in name}
        return Stored(
            cell=cell,
            figures=figures,
            pictures=arrays.get("pictures"),
            seen={(pair[0], pair[2]): arrays[name] for name, pair in pairs.items()},
        )


def summarise(
    suite: TrainingSuite, scale: Scale, stored: Sequence[Stored], real: Mapping[str, RealStatistics]
) -> Results:
    """All tables of the cells that are there."""
    arms = [arm for arm in suite.arms if any(one.cell.arm.name == arm.name for one in stored)]
    tasks = list({one.cell.task.name: one.cell.task for one in stored}.values())
    pooled = {arm.name: _pool_arm(arm, tasks, stored, real) for arm in arms}
    tables = [_make_main_table(suite, arms, stored, pooled)]
    if len(tasks) > 1:
        tables.append(_make_task_table(arms, tasks, stored))
    curve_of, curves = _make_curves(arms, stored)
    lines: list[Mapping[str, object]] = [one.figures for one in stored]
    lines += [{"arm": name, "task": "pooled", **{key: one.to_dict() for key, one in figures.items()}}
              for name, figures in pooled.items() if len(tasks) > 1]  # fmt: skip
    return Results(
        title=suite.title,
        notes=_make_notes(scale, stored, tasks),
        lines=lines,
        tables=tables,
        strips=_make_strips(arms, stored),
        curves=curves,
        curve_of=curve_of,
    )


def _make_notes(scale: Scale, stored: Sequence[Stored], tasks: Sequence[Task]) -> list[str]:
    seeds = sorted({one.cell.seed for one in stored})
    notes = [
        f"{scale.images:,} training images in batches of {scale.batch_size}, seeds {', '.join(map(str, seeds))}, "
        f"{len(tasks)} tasks; every method of a task sees the same photos, noise and timesteps, and starts its "
        "pictures from the same noise."
    ]
    if scale.count:
        networks = sorted({name for one in stored for name, _ in one.seen})
        notes.append(
            f"{scale.count} pictures a class, seen by {', '.join(networks)}. Intervals are of 95 %, of the "
            "pictures; of several seeds the mean, from the lowest end to the highest. Distances are biased upward at "
            "so few pictures and compare within this table alone; the paper's figures are of its own data and size."
        )
    return notes


def _pool_arm(
    arm: Arm, tasks: Sequence[Task], stored: Sequence[Stored], real: Mapping[str, RealStatistics]
) -> dict[str, Measured]:
    """The figures of an arm over all tasks, mean over its seeds; nothing where a task is missing."""
    own = [one for one in stored if one.cell.arm.name == arm.name]
    seeds = sorted({one.cell.seed for one in own})
    parts = []
    for seed in seeds:
        of_seed = [one for one in own if one.cell.seed == seed]
        if len(of_seed) == len(tasks):
            parts.append(_pool_tasks(of_seed, real))
    names = [name for name in _HEADINGS if parts and all(name in part for part in parts)]
    return {name: _join([part[name] for part in parts]) for name in names}


def _pool_tasks(stored: Sequence[Stored], real: Mapping[str, RealStatistics]) -> dict[str, Measured]:
    if len(stored) == 1:
        return _figures_of(stored[0])
    figures: dict[str, Measured] = {}
    sets = [real[one.cell.task.name] for one in stored] if all(one.seen for one in stored) else []
    for network in sorted({name for name, _ in stored[0].seen}) if sets else ():
        features = [feature for name, feature in stored[0].seen if name == network and feature != LOGITS]
        observed = {f: np.concatenate([one.seen[network, f] for one in stored]) for f in features}
        moments = {f: pool_moments([one.moments[network, f] for one in sets]) for f in features}
        rows = {f: np.concatenate([one.rows[network, f] for one in sets]) for f in features}
        figures |= measure_distances(observed, moments, rows)
    each = [_figures_of(one) for one in stored]
    for name in _HEADINGS:
        if name not in figures and all(name in one for one in each):
            figures[name] = _average([one[name] for one in each])
    return figures


def _figures_of(stored: Stored) -> dict[str, Measured]:
    own = {**stored.figures.get("overall", {}), **_of_weights(stored.figures)}
    return {name: Measured(**own[name]) for name in _HEADINGS if name in own}


def _of_weights(figures: PointFigures) -> dict[str, FigureEntry]:
    """What was measured of a checkpoint's weights, whether it drew or not."""
    return {name: figures[name] for name in _WEIGHTS if name in figures}


def _average(figures: Sequence[Measured]) -> Measured:
    """Of shares of several tasks: weighted by what they are of."""
    n = sum(one.n for one in figures)
    value, low, high = (sum(getattr(one, key) * one.n for one in figures) / n for key in ("value", "low", "high"))
    return Measured(value=value, low=low, high=high, n=n)


def _join(figures: Sequence[Measured]) -> Measured:
    """Of several seeds: their mean, between the lowest and the highest end."""
    return Measured(
        value=sum(one.value for one in figures) / len(figures),
        low=min(one.low for one in figures),
        high=max(one.high for one in figures),
        n=sum(one.n for one in figures),
        n_real=figures[0].n_real,
    )


def _make_main_table(
    suite: TrainingSuite, arms: Sequence[Arm], stored: Sequence[Stored], pooled: Mapping[str, Mapping[str, Measured]]
) -> Table:
    shown = [name for name in _HEADINGS if any(name in figures for figures in pooled.values())]
    plain = {arm.name: _plain_figures(arm, stored) for arm in arms}
    headings = ["method", *next(iter(plain.values())), *(_HEADINGS[name] for name in shown)]
    headings += [f"paper: {name}" for name in suite.columns]
    if suite.columns:
        headings.append(f"{suite.arms[0].title} ahead of it")
    rows = []
    for arm in arms:
        own = pooled[arm.name]
        row = [arm.title, *plain[arm.name].values(), *(_show(own.get(name), name) for name in shown)]
        paper = suite.paper.get(arm.name, ())
        row += [_number(paper[i]) if i < len(paper) else "" for i in range(len(suite.columns))]
        row += [compare_order(suite, arm, pooled)] if suite.columns else []
        rows.append(tuple(row))
    return Table(title="", headings=tuple(headings), rows=rows)


def compare_order(suite: TrainingSuite, arm: Arm, pooled: Mapping[str, Mapping[str, Measured]]) -> str:
    """Whether the first arm of the suite is ahead of `arm` here, in words; undecided where their intervals meet."""
    first = suite.arms[0].name
    name = next((one for one in _AHEAD_BY if one in pooled.get(first, {}) and one in pooled[arm.name]), None)
    if arm.name == first or name is None:
        return ""
    ours, theirs = pooled[first][name], pooled[arm.name][name]
    is_decided = ours.high < theirs.low or theirs.high < ours.low
    found = "undecided" if not is_decided else "yes" if ours.value < theirs.value else "no"
    printed = [suite.paper.get(key, (None,))[0] for key in (first, arm.name)]
    if None in printed:
        return found
    expected = "yes" if printed[0] < printed[1] else "no"  # type: ignore[operator]  # neither is None
    return f"{found} (paper: {expected})"


def _plain_figures(arm: Arm, stored: Sequence[Stored]) -> dict[str, str]:
    """Trained parameters, FLOPs, held-out loss and time of a step: means over tasks and seeds."""
    own = [one.figures for one in stored if one.cell.arm.name == arm.name]

    def mean(name: Literal["trained", "flops", "held_out_loss", "seconds_per_step"]) -> float | None:
        values = [value for one in own if (value := one.get(name)) is not None]
        return sum(values) / len(values) if values else None

    trained, flops, loss, seconds = mean("trained"), mean("flops"), mean("held_out_loss"), mean("seconds_per_step")
    return {
        "trained": "" if trained is None else f"{trained / 1e6:.3g} M",
        "FLOPs": "" if flops is None else f"{flops / 1e9:.3g} G",
        "held-out loss": "" if loss is None else f"{loss:.4f}",
        "a step": "" if seconds is None else f"{seconds * 1e3:.0f} ms",
    }


def _make_task_table(arms: Sequence[Arm], tasks: Sequence[Task], stored: Sequence[Stored]) -> Table:
    by_place: dict[tuple[str, str], list[dict[str, Measured]]] = {}
    for one in stored:
        by_place.setdefault((one.cell.arm.name, one.cell.task.name), []).append(_figures_of(one))
    known = [figures for place in by_place.values() for figures in place]
    name = next((one for one in (*_AHEAD_BY, *_HEADINGS) if any(one in figures for figures in known)), None)
    rows = []
    for arm in arms:
        cells = []
        for task in tasks:
            found = by_place.get((arm.name, task.name), [])
            held = [one[name] for one in found if name is not None and name in one]
            cells.append(_show(_join(held), str(name)) if held else "")
        rows.append((arm.title, *cells))
    title = "Task by task" + (f": {_HEADINGS[name]}" if name else "")
    return Table(title=title, headings=("method", *(task.name for task in tasks)), rows=rows)


def _make_curves(arms: Sequence[Arm], stored: Sequence[Stored]) -> tuple[str, dict[str, Sequence[tuple[float, float]]]]:
    """A suite's figure at its points, else the held-out loss; means over the tasks and seeds that an arm has."""
    curves: dict[str, Sequence[tuple[float, float]]] = {}
    what = "held-out loss"
    for arm in arms:
        own = [one.figures for one in stored if one.cell.arm.name == arm.name]
        values: dict[float, list[float]] = {}
        for figures in own:
            points = figures["curve"]
            named = next((n for n in _AHEAD_BY if n in figures.get("overall", {})), None)
            if "points" in figures and named is not None:
                what = _HEADINGS[named]
                points = [(one["images"], one["overall"][named]["value"]) for one in figures["points"]]
            for images, value in points:
                values.setdefault(images, []).append(value)
        curves[arm.title] = [(images, sum(v) / len(v)) for images, v in sorted(values.items())]
    return what, {name: points for name, points in curves.items() if points}


def _make_strips(arms: Sequence[Arm], stored: Sequence[Stored]) -> list[Strip]:
    """A row an arm: its pictures of the first task and seed that has any."""
    strips: list[Strip] = []
    for arm in arms:
        first = next((one for one in stored if one.cell.arm.name == arm.name and one.pictures is not None), None)
        if first is not None and first.pictures is not None:
            strips.append((arm.name, arm.title, list(first.pictures)))
    width = min((len(pictures) for _, _, pictures in strips), default=0)
    return [(name, title, pictures[:width]) for name, title, pictures in strips]


def _show(figure: Measured | None, name: str) -> str:
    if figure is None:
        return ""
    digits = ".0%" if name in _SHARES else ".2f" if name.endswith(("precision", "recall")) else ".3g"
    value, low, high = (format(number, digits) for number in (figure.value, figure.low, figure.high))
    return f"{value} ({low} to {high})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
