"""The tables of a training suite: every arm pooled over its tasks beside the paper's figures, and task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from kind_core.console import count_of
from kind_train.benchmark.cells import Cell, CellFigures, Stored
from kind_train.benchmark.results import Results, Strip, name_seeds
from kind_train.benchmark.suite import Arm, Scale, TrainingSuite
from kind_train.benchmark.tables import AHEAD_BY, HEADINGS, figures_of, join, make_tables
from kind_train.benchmark.tasks import Task
from kind_train.evaluate.against import Measured, measure_asked, measure_distances
from kind_train.evaluate.frechet import MomentSums, pool_moments
from kind_train.evaluate.judges import Judge
from kind_train.evaluate.statistics import LOGITS, RealStatistics

_NOTES = {
    "gradients": "What the gradient of one image reaches: means over 16 photos, from the lowest to the highest. "
    "Without gates no component is a tailor, so that the last cell is empty."
}

_PHOTOS = Arm(name="photos", title="held-out photos", stages=())
_LEAST = 8  # photos on either side, so that a covariance and neighbours are there


def summarise(
    suite: TrainingSuite,
    scale: Scale,
    stored: Sequence[Stored],
    real: Mapping[str, RealStatistics],
    judge: Judge | None = None,
) -> Results:
    """All tables of the cells that are there."""
    arms = [arm for arm in suite.arms if any(one.cell.arm.name == arm.name for one in stored)]
    tasks = list({one.cell.task.name: one.cell.task for one in stored}.values())
    pooled = {arm.name: _pool_arm(arm, tasks, stored, real) for arm in arms}
    photos = _measure_photos(tasks, stored, real, judge)
    tables = make_tables(suite, arms, tasks, stored, pooled, photos)
    curve_of, curves = _make_curves(arms, stored)
    lines: list[Mapping[str, object]] = [one.figures for one in stored]
    lines += [{"arm": name, "task": "pooled", **{key: one.to_dict() for key, one in figures.items()}}
              for name, figures in pooled.items() if len(tasks) > 1]  # fmt: skip
    if photos:
        lines.append({"arm": "photos", "task": "pooled", **{key: one.to_dict() for key, one in photos.items()}})
    return Results(
        title=suite.title,
        notes=[*_make_notes(scale, stored, tasks), *(_NOTES[name] for name in suite.measures if name in _NOTES)],
        lines=lines,
        tables=tables,
        strips=_make_strips(arms, stored),
        columns=stored[0].figures.get("classes", ()) if stored else (),
        curves=curves,
        curve_of=curve_of,
    )


def _make_notes(scale: Scale, stored: Sequence[Stored], tasks: Sequence[Task]) -> list[str]:
    seeds = name_seeds(sorted({one.cell.seed for one in stored}))
    sizes = [len(task.classes) for task in tasks]
    classes = f"{min(sizes)} classes" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)} classes"
    notes = [
        f"{scale.images:,} training images in batches of {scale.batch_size}, {seeds}, "
        f"{count_of(len(tasks), 'task')} of {classes}; every method of a task sees the same photos, "
        "noise and timesteps, and starts its pictures from the same noise."
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
    names = [name for name in HEADINGS if parts and all(name in part for part in parts)]
    return {name: join([part[name] for part in parts]) for name in names}


def _pool_tasks(stored: Sequence[Stored], real: Mapping[str, RealStatistics]) -> dict[str, Measured]:
    if len(stored) == 1:
        return figures_of(stored[0])
    figures: dict[str, Measured] = {}
    sets = [real[one.cell.task.name] for one in stored] if all(one.seen for one in stored) else []
    for network in sorted({name for name, _ in stored[0].seen}) if sets else ():
        features = [feature for name, feature in stored[0].seen if name == network and feature != LOGITS]
        observed = {f: np.concatenate([one.seen[network, f] for one in stored]) for f in features}
        moments = {f: pool_moments([one.moments[network, f] for one in sets]) for f in features}
        rows = {f: np.concatenate([one.rows[network, f] for one in sets]) for f in features}
        figures |= measure_distances(observed, moments, rows)
    each = [figures_of(one) for one in stored]
    for name in HEADINGS:
        if name not in figures and all(name in one for one in each):
            figures[name] = _average([one[name] for one in each])
    return figures


def _measure_photos(
    tasks: Sequence[Task], stored: Sequence[Stored], real: Mapping[str, RealStatistics], judge: Judge | None
) -> dict[str, Measured]:
    """The figures of real photos in the place of pictures; nothing where a task has too few of them."""
    parts = []
    for task in tasks if real else ():
        count = max((one.figures.get("num_images", 0) for one in stored if one.cell.task.name == task.name), default=0)
        parts.append(part_photos(task, real[task.name], count, judge))
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return {}
    return _pool_tasks([one for one, _ in known], {one.cell.task.name: others for one, others in known})


def part_photos(
    task: Task, real: RealStatistics, count: int, judge: Judge | None
) -> tuple[Stored, RealStatistics] | None:
    """The row that a table is read against: real photos in the place of pictures, as many, beside all the others.

    `count` of the kept photos of a task as if they had been drawn, and statistics of the others.
    Of fewer than twice `count` it is half of them; None where that is next to nothing.
    """
    kept = len(real.labels)
    size = min(count, kept // 2)
    if size < _LEAST:
        return None
    order = np.random.default_rng(0).permutation(kept)
    drawn, others = np.sort(order[:size]), np.sort(order[size:])
    seen = {key: rows[drawn] for key, rows in real.rows.items()}
    rest = {key: rows[others] for key, rows in real.rows.items()}
    moments = {}
    for key in real.moments:
        sums = MomentSums()
        sums.add(rest[key])
        moments[key] = sums.moments()
    parted = replace(real, labels=real.labels[others], rows=rest, moments=moments)
    overall = _measure(seen, parted)
    if judge is not None and (logits := seen.get((real.networks[0].name, LOGITS))) is not None:
        asked = measure_asked(logits, real.labels[drawn], [judge.index(info) for info in real.classes])
        overall |= {} if asked is None else {"called_as_asked": asked}
    figures: CellFigures = {
        "arm": _PHOTOS.name,
        "title": _PHOTOS.title,
        "task": task.name,
        "seed": 0,
        "classes": list(task.classes),
        "images": 0,
        "curve": (),
        "seconds_per_step": None,
        "num_images": size,
        "overall": {name: one.to_dict() for name, one in overall.items()},
    }
    return Stored(cell=Cell(arm=_PHOTOS, task=task, seed=0), figures=figures, pictures=None, seen=seen), parted


def _measure(seen: Mapping[tuple[str, str], np.ndarray], others: RealStatistics) -> dict[str, Measured]:
    figures: dict[str, Measured] = {}
    for network in others.networks:
        features = [feature for name, feature in others.moments if name == network.name]
        figures |= measure_distances(
            {feature: seen[network.name, feature] for feature in features},
            {feature: others.moments[network.name, feature] for feature in features},
            {feature: others.rows[network.name, feature] for feature in features},
        )
    return figures


def _average(figures: Sequence[Measured]) -> Measured:
    """Of shares of several tasks: weighted by what they are of."""
    n = sum(one.n for one in figures)
    value, low, high = (sum(getattr(one, key) * one.n for one in figures) / n for key in ("value", "low", "high"))
    return Measured(value=value, low=low, high=high, n=n)


def _make_curves(arms: Sequence[Arm], stored: Sequence[Stored]) -> tuple[str, dict[str, Sequence[tuple[float, float]]]]:
    """A suite's figure at its points, else the held-out loss; means over the tasks and seeds that an arm has."""
    curves: dict[str, Sequence[tuple[float, float]]] = {}
    what = "held-out loss"
    for arm in arms:
        own = [one.figures for one in stored if one.cell.arm.name == arm.name]
        values: dict[float, list[float]] = {}
        for figures in own:
            points: Sequence[tuple[float, float]] = figures["curve"]
            named = next((n for n in AHEAD_BY if n in figures.get("overall", {})), None)
            if "points" in figures and named is not None:
                what = HEADINGS[named]
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
