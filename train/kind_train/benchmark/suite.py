"""A suite as its YAML file in `suites/` says: what is compared, the paper's figures, and how much at each scale.

A suite either draws with one model (`Row`s: what carries the class) or trains (`Arm`s: methods, shapes, starts).
few-shot trains classifiers, and is described in a folder of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import NotRequired, TypedDict, cast

from kind_core.errors import ConfigError
from kind_train.benchmark.few_shot.suite import FewShotSuite, read_few_shot
from kind_train.benchmark.options import choose_named

DRAWING_SUITES = ("class-agnostic", "cross-class")
TRAINING_SUITES = (
    "table-1",
    "novel-classes",
    "domain-shift",
    "convergence",
    "gpu-time",
    "num-classes",
    "tailor-rank",
    "init-from",
    "frobenius",
    "gradient-sparsity",
    "cayley",
)
FEW_SHOT = "few-shot"  # see `kind_train.benchmark.few_shot`
SUITES = (*DRAWING_SUITES, *TRAINING_SUITES, FEW_SHOT)
STAGES = ("fit", "shrink", "adapt")
_STEPS = {"own": 0, "next": 1, "none": None}


class _RowEntry(TypedDict):
    """A `Row` as its file writes it: steps are `own`, `next`, `none` or a number."""

    title: str
    source: NotRequired[str]
    label: NotRequired[str | int]
    gate: NotRequired[str | int]


class _DrawingScale(TypedDict):
    count: int


class _DrawingDocument(TypedDict):
    """The file of a suite that draws."""

    title: str
    rows: dict[str, _RowEntry]
    paper: NotRequired[dict[str, tuple[float, float, float]]]
    scales: dict[str, _DrawingScale]


class _ArmEntry(TypedDict):
    """An `Arm` as its file writes it: the stages in the order in which they are there."""

    title: str
    start: NotRequired[str]
    fit: NotRequired[dict[str, object]]
    shrink: NotRequired[dict[str, object]]
    adapt: NotRequired[dict[str, object]]


class _ScaleEntry(TypedDict):
    """A `Scale` as its file writes it."""

    images: int
    batch_size: int
    count: int
    seeds: list[int]
    base_images: NotRequired[int]
    points: NotRequired[list[int]]
    saves: NotRequired[int]
    options: NotRequired[dict[str, object]]


class _TrainingDocument(TypedDict):
    """The file of a suite that trains; `paper` has the names of its `columns`, and the figures of each arm."""

    title: str
    arms: dict[str, _ArmEntry]
    paper: NotRequired[dict[str, list[str | float | None]]]
    options: NotRequired[dict[str, object]]
    scales: dict[str, _ScaleEntry]
    measures: NotRequired[list[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of a table. `source`: model, dense, photos or noise.

    `label` and `gate`: how many classes after the drawn one it is whose label and tailor are taken; None for neither.
    """

    name: str
    title: str
    source: str = "model"
    label: int | None = None
    gate: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """`counts`: pictures a class at each scale. `paper`: entropy, variance and kurtosis of the rows that it prints."""

    name: str
    title: str
    rows: tuple[Row, ...]
    paper: Mapping[str, tuple[float, float, float]]
    counts: Mapping[str, int]

    def choose(self, names: tuple[str, ...]) -> tuple[Row, ...]:
        """The rows called so, all of them by default; raises ConfigError for one that is unknown."""
        return choose_named(self.name, {row.name: row for row in self.rows}, names)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One thing that is compared: the stages that make its checkpoint, each of `STAGES` with the options of a run.

    Without stages it is the checkpoint that is given as `start`: `checkpoint` or `dense`.
    """

    name: str
    title: str
    stages: tuple[tuple[str, Mapping[str, object]], ...]
    start: str = "checkpoint"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How much: training `images` of the last stage and `base_images` of those before it, `count` pictures a class.

    Figures are taken after each of `points` images, where there are any. `options` are those of every run, whose
    held-out loss is measured `saves` times.
    """

    images: int
    batch_size: int
    count: int
    seeds: tuple[int, ...]
    base_images: int = 0
    points: tuple[int, ...] = ()
    saves: int = 10
    options: Mapping[str, object]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSuite:
    """`paper` has the figures that it prints of an arm, by `columns`; lower is better, the first arm is KIND's.

    `measures` are taken of the weights beside what is drawn: see `kind_train.benchmark.weights`.
    """

    name: str
    title: str
    arms: tuple[Arm, ...]
    columns: tuple[str, ...]
    paper: Mapping[str, tuple[float | None, ...]]
    scales: Mapping[str, Scale]
    measures: tuple[str, ...] = ()

    def choose(self, names: tuple[str, ...]) -> tuple[Arm, ...]:
        """The arms called so, all of them by default; raises ConfigError for one that is unknown."""
        return choose_named(self.name, {arm.name: arm for arm in self.arms}, names)


def read_suite(name: str) -> Suite | TrainingSuite | FewShotSuite:
    """The suite called `name`; raises ConfigError naming those there are."""
    import yaml

    if name not in SUITES:
        raise ConfigError(f"there is no suite {name!r}, expected {', '.join(SUITES[:-1])} or {SUITES[-1]}")
    text = (files("kind_train.benchmark") / "suites" / f"{name}.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    if name == FEW_SHOT:
        return read_few_shot(name, data)
    return _read_drawing(name, data) if name in DRAWING_SUITES else _read_training(name, data)


def _read_drawing(name: str, data: _DrawingDocument) -> Suite:
    rows = tuple(
        Row(
            name=key,
            title=row["title"],
            source=row.get("source", "model"),
            label=_find_step(row.get("label", "none")),
            gate=_find_step(row.get("gate", "none")),
        )
        for key, row in data["rows"].items()
    )
    paper = {key: (float(e), float(v), float(k)) for key, (e, v, k) in data.get("paper", {}).items()}
    counts = {key: scale["count"] for key, scale in data["scales"].items()}
    return Suite(name=name, title=data["title"], rows=rows, paper=paper, counts=counts)


def _find_step(value: str | int) -> int | None:
    return value if isinstance(value, int) else _STEPS[value]


def _read_training(name: str, data: _TrainingDocument) -> TrainingSuite:
    arms = tuple(
        Arm(
            name=key,
            title=arm["title"],
            stages=tuple(
                (stage, cast(Mapping[str, object], options)) for stage, options in arm.items() if stage in STAGES
            ),
            start=arm.get("start", "checkpoint"),
        )
        for key, arm in data["arms"].items()
    )
    paper = data.get("paper", {})
    common = data.get("options", {})
    scales = {
        key: Scale(
            images=int(scale["images"]),
            batch_size=int(scale["batch_size"]),
            count=int(scale["count"]),
            seeds=tuple(scale["seeds"]),
            base_images=int(scale.get("base_images", 0)),
            points=tuple(scale.get("points", ())),
            saves=int(scale.get("saves", 10)),
            options={**common, **scale.get("options", {})},
        )
        for key, scale in data["scales"].items()
    }
    return TrainingSuite(
        name=name,
        title=data["title"],
        arms=arms,
        columns=tuple(map(str, paper.get("columns", ()))),
        paper={
            key: tuple(None if value is None else float(value) for value in values)
            for key, values in paper.items()
            if key != "columns"
        },
        scales=scales,
        measures=tuple(data.get("measures", ())),
    )
