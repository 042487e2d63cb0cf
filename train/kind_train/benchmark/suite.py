"""A suite as its YAML file in `suites/` says: what is compared, the paper's figures, and how much at each scale.

A suite draws with one model (`Row`s: what carries the class), trains (`Arm`s: methods, shapes, starts), or is few-shot,
which trains classifiers. No torch is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Generic, Literal, Protocol, TypeVar

from kind_core.errors import ConfigError

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

Network = Literal["kind", "vit"]
Train = Literal["tailors", "everything", "nothing"]


class Named(Protocol):
    """What a table has a row of, or a folder a file."""

    @property
    def name(self) -> str: ...


_M = TypeVar("_M", bound=Named)


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
class Arm:
    """One thing that is compared: the stages that make its checkpoint, each of `STAGES` with the options of a run.

    Without stages it is the checkpoint that is given as `start`: `checkpoint` or `dense`.
    """

    name: str
    title: str
    stages: tuple[tuple[str, Mapping[str, object]], ...]
    start: str = "checkpoint"


@dataclass(frozen=True, kw_only=True, slots=True)
class FewShotArm:
    """A way to learn a task: which pre-trained network it starts from, what of it is trained, and how fast."""

    name: str
    title: str
    network: Network
    train: Train
    learning_rate: float


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
class FewShotScale:
    """The shape of the networks, their pre-training on `images`, and the tasks: `episodes` for each of `shots`.

    A task has `ways` classes with so many photos each to learn from, in `steps` of `task_batch` photos, and `queries`
    each to be asked about. `gate_dropout`: the share of images of pre-training that the learngene sees alone.
    """

    size: int
    patch_size: int
    hidden_size: int
    depth: int
    num_heads: int
    learngene_rank: int
    tailor_rank: int
    task_rank: int
    images: int
    batch_size: int
    learning_rate: float
    gate_dropout: float
    ways: int
    shots: tuple[int, ...]
    queries: int
    episodes: int
    steps: int
    task_batch: int
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Compared(Generic[_M]):
    """What every suite is: `arms`, which are compared."""

    name: str
    title: str
    arms: tuple[_M, ...]

    def choose(self, names: tuple[str, ...]) -> tuple[_M, ...]:
        """What is called so, all of it by default; raises ConfigError for a name that is unknown."""
        known = [one.name for one in self.arms]
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"suite {self.name!r} has no method {name!r}, expected one of {', '.join(known)}",
                    f"see them with kind-train benchmark {self.name} --list-cells",
                )
        return tuple(one for one in self.arms if one.name in names or not names)


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite(_Compared[Row]):
    """`counts`: pictures a class at each scale. `paper`: entropy, variance and kurtosis of the rows that it prints."""

    paper: Mapping[str, tuple[float, float, float]]
    counts: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSuite(_Compared[Arm]):
    """`paper` has the figures that it prints of an arm, by `columns`; lower is better, the first arm is KIND's.

    `measures` are taken of the weights beside what is drawn: see `kind_train.benchmark.weights`.
    """

    columns: tuple[str, ...]
    paper: Mapping[str, tuple[float | None, ...]]
    scales: Mapping[str, Scale]
    measures: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class FewShotSuite(_Compared[FewShotArm]):
    """`paper` has the accuracy that it prints of an arm, in percent; the first arm is KIND's."""

    paper: Mapping[str, float]
    scales: Mapping[str, FewShotScale]


def read_suite(name: str) -> Suite | TrainingSuite | FewShotSuite:
    """The suite called `name`; raises ConfigError naming those there are."""
    import yaml

    if name not in SUITES:
        raise ConfigError(f"there is no suite {name!r}, expected {', '.join(SUITES[:-1])} or {SUITES[-1]}")
    text = (files("kind_train.benchmark") / "suites" / f"{name}.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)  # as `Suite` and the others say; a file of this package, which tests read
    if name in TRAINING_SUITES:
        return _read_training(name, data)
    if name == FEW_SHOT:
        arms = tuple(FewShotArm(name=key, **entry) for key, entry in data["arms"].items())
        scales = {key: FewShotScale(**_as_tuples(entry)) for key, entry in data["scales"].items()}
        return FewShotSuite(name=name, title=data["title"], arms=arms, paper=data["paper"], scales=scales)
    rows = []
    for key, entry in data["rows"].items():
        steps = {one: _STEPS.get(step, step) for one, step in entry.items() if one in ("label", "gate")}
        rows.append(Row(name=key, **entry | steps))
    counts = {key: scale["count"] for key, scale in data["scales"].items()}
    return Suite(name=name, title=data["title"], arms=tuple(rows), paper=data.get("paper", {}), counts=counts)


def _read_training(name: str, data: Any) -> TrainingSuite:
    arms = []
    for key, entry in data["arms"].items():
        stages = tuple((stage, options) for stage, options in entry.items() if stage in STAGES)  # in their order
        arms.append(Arm(name=key, title=entry["title"], stages=stages, start=entry.get("start", "checkpoint")))
    common, paper = data.get("options", {}), _as_tuples(data.get("paper", {}))
    return TrainingSuite(
        name=name,
        title=data["title"],
        arms=tuple(arms),
        columns=paper.pop("columns", ()),
        paper=paper,
        scales={
            key: Scale(**_as_tuples(entry) | {"options": common | entry.get("options", {})})
            for key, entry in data["scales"].items()
        },
        measures=tuple(data.get("measures", ())),
    )


def _as_tuples(entry: Any) -> Any:
    """The same names and values with tuples for the lists that YAML makes."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
