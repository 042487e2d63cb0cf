"""What the few-shot suite shows: accuracies over the episodes, KIND beside the others on the same ones, and costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from kind_train.benchmark.results import Results, Table, name_seeds
from kind_train.benchmark.suite import FewShotArm, FewShotScale, FewShotSuite
from kind_train.benchmark.tables import show_count

_Z = NormalDist().inv_cdf(0.975)
_NOTE = (
    "The paper's accuracies are means over ChestX, ISIC, EuroSAT and CropDisease, of larger networks; its answers also "
    "print 64.1 for P>M>F and 66.1 for StyleAdv, which are not here."
)


class FewShotFigures(TypedDict):
    """A cell: mean accuracy over its episodes, what a task trained and took of the CPU, and the base's losses."""

    arm: str
    title: str
    shots: int
    seed: int
    episodes: int
    accuracy: float
    trained: int
    seconds_per_task: float
    curve: list[tuple[float, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """A cell as it lies in its file."""

    figures: FewShotFigures
    accuracies: NDArray[np.float64]


def summarise(
    suite: FewShotSuite, scale: FewShotScale, answered: Sequence[Answered], base_data: str, data: str
) -> Results:
    """All that the folder shows of the cells that are there."""
    arms = [arm for arm in suite.arms if any(one.figures["arm"] == arm.name for one in answered)]
    shots = sorted({one.figures["shots"] for one in answered})
    tables = [
        _make_accuracies(suite, arms, shots, answered),
        _make_differences(suite.arms[0], arms, shots, answered),
        _make_costs(arms, answered),
    ]
    curves = {arm.network: one.figures["curve"] for arm in arms for one in answered if one.figures["arm"] == arm.name}
    names = {"kind": "KIND", "vit": "vanilla ViT"}
    return Results(
        title=suite.title,
        notes=[_describe(scale, base_data, data), _NOTE],
        lines=[one.figures for one in answered],
        tables=[table for table in tables if table.rows],
        curves={names[network]: curve for network, curve in curves.items()},
        curve_of="loss of pre-training",
    )


def _describe(scale: FewShotScale, base_data: str, data: str) -> str:
    return (
        f"Networks of width {scale.hidden_size} and {scale.depth} blocks learned {base_data} from {scale.images:,} "
        f"images of {scale.size} x {scale.size} in batches of {scale.batch_size}, {name_seeds(scale.seeds)}. A task is "
        f"{scale.ways} classes of {data}, {scale.queries} queries each, {scale.steps} steps of {scale.task_batch} "
        f"photos; {scale.episodes} tasks a seed, the same for every method. Intervals are of 95 %, over the tasks."
    )


def _find(answered: Sequence[Answered], arm: FewShotArm, shots: int) -> dict[int, NDArray[np.float64]]:
    """Accuracies by seed."""
    return {
        one.figures["seed"]: one.accuracies
        for one in answered
        if one.figures["arm"] == arm.name and one.figures["shots"] == shots
    }


def _make_accuracies(
    suite: FewShotSuite, arms: Sequence[FewShotArm], shots: Sequence[int], answered: Sequence[Answered]
) -> Table:
    rows = []
    for arm in arms:
        found = [_find(answered, arm, each) for each in shots]
        paper = suite.paper.get(arm.name)
        cells = [_show(np.concatenate([*own.values()]), "{:.1%}") if own else "" for own in found]
        rows.append((arm.title, *cells, "" if paper is None else f"{paper:g}%"))
    return Table(title="", headings=("method", *map(_name, shots), "paper: accuracy"), rows=rows)


def _make_differences(
    first: FewShotArm, arms: Sequence[FewShotArm], shots: Sequence[int], answered: Sequence[Answered]
) -> Table:
    """The mean difference over the episodes that both have: narrower than the intervals of either."""
    rows = []
    for arm in arms if first in arms else ():
        cells = []
        for each in shots:
            ours, theirs = _find(answered, first, each), _find(answered, arm, each)
            both = [100 * (ours[seed] - theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]
            cells.append(_show(np.concatenate(both), "{:+.1f}") if both else "")
        rows.append((arm.title, *cells))
    title = f"Points that {first.title} is ahead by, on the same tasks"
    return Table(title=title, headings=("of", *map(_name, shots)), rows=[row for row in rows if row[0] != first.title])


def _make_costs(arms: Sequence[FewShotArm], answered: Sequence[Answered]) -> Table:
    rows = []
    for arm in arms:
        own = [one.figures for one in answered if one.figures["arm"] == arm.name]
        loss = np.mean([figures["curve"][-1][1] for figures in own if figures["curve"]] or [np.nan])
        seconds = np.mean([figures["seconds_per_task"] for figures in own])
        rows.append((arm.title, show_count(own[0]["trained"]), f"{seconds:.2f} s", f"{loss:.3f}"))
    headings = ("method", "trained", "CPU time of a task", "loss of pre-training")
    return Table(title="What it costs", headings=headings, rows=rows)


def _name(shots: int) -> str:
    return f"{shots}-shot"


def _show(values: NDArray[np.float64], form: str) -> str:
    """Mean and 95 % interval over episodes."""
    mean = float(values.mean())
    half = _Z * float(values.std(ddof=1)) / len(values) ** 0.5
    return "{} ({} to {})".format(*(form.format(value) for value in (mean, mean - half, mean + half)))
