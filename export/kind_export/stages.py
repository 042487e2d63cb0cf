"""The stages of an export: they are listed before they begin, so that a bar counts those that really come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Self

from kind_export.target_rows import TARGET_ROWS

if TYPE_CHECKING:
    from kind_export.job import ExportJob

OnStage = Callable[[str], None]


class Stage(str):
    """A stage that begins, by its name: `number`, from 1, of `total`, as far as is known by then."""

    number: int
    total: int

    def __new__(cls, name: str, number: int, total: int) -> Self:
        stage = super().__new__(cls, name)
        stage.number, stage.total = number, total
        return stage


class Stages:
    """Tells `on_stage` of each stage as it begins, a `Stage` that knows how many come."""

    def __init__(self, on_stage: OnStage) -> None:
        self._on_stage = on_stage
        self._coming: list[str] = []
        self._number = 0

    def expect(self, names: Iterable[str]) -> None:
        """From now on these will come, by their names or how they begin, and none that was expected before."""
        self._coming = list(names)

    def begin(self, name: str) -> None:
        """A stage begins; what was not expected comes in addition."""
        expected = next((one for one in self._coming if name.startswith(one)), None)
        if expected is not None:
            self._coming.remove(expected)
        self._number += 1
        self._on_stage(Stage(name, self._number, self._number + len(self._coming)))


READING = ("reading the checkpoint", "running the eager model")
PLANNING = ("forecasting what meets the budget", "measuring the error of")


def list_stages(job: ExportJob) -> Iterator[str]:
    """What an export of `job` goes through, in order, where the artifacts of each target hold at once."""
    yield from READING
    if not job.request.budget.is_empty:
        yield from PLANNING
    yield from list_making(job)


def list_making(job: ExportJob) -> Iterator[str]:
    """What it goes through once all is read and chosen."""
    yield "composing and rewriting"
    has_decode = job.source.autoencoder is not None or job.source.config.dit.in_channels == 3
    for name in job.targets:
        if not TARGET_ROWS[name].is_program:
            yield f"writing the {name} pipeline"
        else:
            yield f"lowering step to {name}"
            if has_decode:
                yield f"lowering decode to {name}"
        yield f"verifying {name}"
    yield from ("counting the work", "drawing previews", "measuring")
