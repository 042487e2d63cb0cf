"""The tables of a training suite: how good each arm is beside the paper's figures, what it costs, and task by task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Literal

from kind_train.benchmark.cells import OfWeights, Stored
from kind_train.benchmark.results import Table, show_figure
from kind_train.benchmark.suite import Arm, TrainingSuite
from kind_train.benchmark.tasks import Task
from kind_train.evaluate.against import Measured

# Figures in the order of the table; lower is better for those that tell which of two is ahead.
HEADINGS = {
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
    "component_gradient_share": "of components",
    "tailor_gradient_share": "of tailors",
}
_GRADIENTS: tuple[OfWeights, ...] = ("gradient_share", "component_gradient_share", "tailor_gradient_share")
_WEIGHTS: tuple[OfWeights, ...] = ("tailor_norm", *_GRADIENTS)
AHEAD_BY = ("fid", "fdd", "distance")
_SHARES = {"called_as_asked", *_GRADIENTS}
_PHOTOS = "held-out photos"
_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))

_Cost = Literal["trained", "flops", "held_out_loss", "seconds_per_step", "processor_seconds"]
Pooled = Mapping[str, Mapping[str, Measured]]


def make_tables(
    suite: TrainingSuite,
    arms: Sequence[Arm],
    tasks: Sequence[Task],
    stored: Sequence[Stored],
    pooled: Pooled,
    photos: Mapping[str, Measured],
) -> list[Table]:
    """All tables; `pooled` are the figures of each arm over its tasks and seeds, `photos` those of real photos."""
    tables = [_make_main_table(suite, arms, pooled, photos), _make_cost_table(arms, stored)]
    if len(tasks) > 1:
        tables.append(_make_task_table(arms, tasks, stored))
    return [table for table in tables if len(table.headings) > 1]


def _make_main_table(
    suite: TrainingSuite, arms: Sequence[Arm], pooled: Pooled, photos: Mapping[str, Measured]
) -> Table:
    shown = [name for name in HEADINGS if any(name in figures for figures in pooled.values())]
    ahead_by = next((name for name in AHEAD_BY if name in shown), None) if suite.columns else None
    headings = ["method", *(HEADINGS[name] for name in shown)]
    headings += [] if ahead_by is None else [f"{suite.arms[0].title} ahead by {HEADINGS[ahead_by]}"]
    headings += [f"paper: {name}" for name in suite.columns]
    rows = []
    if photos:
        cells = [_PHOTOS, *(_show(photos.get(name), name) for name in shown)]
        rows.append((*cells, *[""] * (len(headings) - len(cells))))
    for arm in arms:
        row = [arm.title, *(_show(pooled[arm.name].get(name), name) for name in shown)]
        row += [] if ahead_by is None else [compare_order(suite, arm, pooled)]
        paper = suite.paper.get(arm.name, ())
        row += ["" if value is None else f"{value:g}" for _, value in zip_longest(suite.columns, paper)]
        rows.append(tuple(row))
    return Table(title="", headings=tuple(headings), rows=rows)


def compare_order(suite: TrainingSuite, arm: Arm, pooled: Pooled) -> str:
    """Whether the first arm of the suite is ahead of `arm` here, in words; undecided where their intervals meet."""
    first = suite.arms[0].name
    name = next((one for one in AHEAD_BY if one in pooled.get(first, {}) and one in pooled[arm.name]), None)
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


def _make_cost_table(arms: Sequence[Arm], stored: Sequence[Stored]) -> Table:
    """Trained parameters, FLOPs, held-out loss and time of a step and a run: means over tasks and seeds."""
    rows = []
    for arm in arms:
        own = [one.figures for one in stored if one.cell.arm.name == arm.name]
        cells = []
        for name, (_, form) in _COSTS.items():
            values = [value for one in own if (value := one.get(name)) is not None]
            cells.append(form(sum(values) / len(values)) if values else "")
        rows.append((arm.title, *cells))
    kept = [i for i in range(len(_COSTS)) if any(row[1 + i] for row in rows)]
    headings = [heading for heading, _ in _COSTS.values()]
    return Table(
        title="What it costs",
        headings=("method", *(headings[i] for i in kept)),
        rows=[(row[0], *(row[1 + i] for i in kept)) for row in rows],
    )


def show_count(value: float) -> str:
    size, unit = next(((size, unit) for size, unit in _UNITS if value >= size), (1, ""))
    return f"{value / size:.3g} {unit}".rstrip()


_COSTS: Mapping[_Cost, tuple[str, Callable[[float], str]]] = {
    "trained": ("trained", show_count),
    "flops": ("FLOPs", show_count),
    "held_out_loss": ("held-out loss", "{:.4f}".format),
    "seconds_per_step": ("a step", lambda seconds: f"{seconds * 1e3:.0f} ms"),
    "processor_seconds": ("CPU time", lambda seconds: f"{seconds:.0f} s"),
}


def _make_task_table(arms: Sequence[Arm], tasks: Sequence[Task], stored: Sequence[Stored]) -> Table:
    by_place: dict[tuple[str, str], list[dict[str, Measured]]] = {}
    for one in stored:
        by_place.setdefault((one.cell.arm.name, one.cell.task.name), []).append(figures_of(one))
    known = [figures for place in by_place.values() for figures in place]
    name = next((one for one in (*AHEAD_BY, *HEADINGS) if any(one in figures for figures in known)), None)
    rows = []
    for arm in arms:
        cells = []
        for task in tasks:
            found = by_place.get((arm.name, task.name), [])
            held = [one[name] for one in found if name is not None and name in one]
            cells.append(_show(join(held), str(name)) if held else "")
        rows.append((arm.title, *cells))
    title = "Task by task" + (f": {HEADINGS[name]}" if name else "")
    return Table(title=title, headings=("method", *(task.name for task in tasks)), rows=rows)


def figures_of(stored: Stored) -> dict[str, Measured]:
    """All figures of a cell that tables show."""
    figures = stored.figures
    own = figures.get("overall", {}) | {name: figures[name] for name in _WEIGHTS if name in figures}
    return {name: Measured(**own[name]) for name in HEADINGS if name in own}


def join(figures: Sequence[Measured]) -> Measured:
    """Of several seeds: their mean, between the lowest and the highest end."""
    return Measured(
        value=sum(one.value for one in figures) / len(figures),
        low=min(one.low for one in figures),
        high=max(one.high for one in figures),
        n=sum(one.n for one in figures),
        n_real=figures[0].n_real,
    )


def _show(figure: Measured | None, name: str) -> str:
    return show_figure(figure, ".0%" if name in _SHARES else ".2f" if name.endswith(("precision", "recall")) else ".3g")
