"""The file of the few-shot suite: which networks are adapted to a task, and how, at each scale. No torch is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from kind_train.benchmark.options import choose_named

Network = Literal["kind", "vit"]
Train = Literal["tailors", "everything", "nothing"]


class _ArmEntry(TypedDict):
    title: str
    network: Network
    train: Train
    learning_rate: float


class FewShotDocument(TypedDict):
    """The file; `scales` have the fields of `FewShotScale`."""

    title: str
    arms: dict[str, _ArmEntry]
    paper: dict[str, float]
    scales: dict[str, dict[str, object]]


@dataclass(frozen=True, kw_only=True, slots=True)
class FewShotArm:
    """A way to learn a task: which pre-trained network it starts from, what of it is trained, and how fast."""

    name: str
    title: str
    network: Network
    train: Train
    learning_rate: float


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
class FewShotSuite:
    """`paper` has the accuracy that it prints of an arm, in percent; the first arm is KIND's."""

    name: str
    title: str
    arms: tuple[FewShotArm, ...]
    paper: Mapping[str, float]
    scales: Mapping[str, FewShotScale]

    def choose(self, names: tuple[str, ...]) -> tuple[FewShotArm, ...]:
        """The arms called so, all of them by default; raises ConfigError for one that is unknown."""
        return choose_named(self.name, {arm.name: arm for arm in self.arms}, names)


def read_few_shot(name: str, data: FewShotDocument) -> FewShotSuite:
    """The suite that its file describes."""
    return FewShotSuite(
        name=name,
        title=data["title"],
        arms=tuple(FewShotArm(name=key, **entry) for key, entry in data["arms"].items()),
        paper={key: float(value) for key, value in data["paper"].items()},
        scales={key: _read_scale(entry) for key, entry in data["scales"].items()},
    )


def _read_scale(entry: Mapping[str, object]) -> FewShotScale:
    fields: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return FewShotScale(**fields)
