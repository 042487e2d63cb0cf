"""What may be chosen of an export, and what is known of each choice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import cast

from kind_bench.forecasting.devices import Device
from kind_core.precisions import APPROXIMATE, PRECISIONS, PrecisionName
from kind_export.budget import NO_BUDGET, Budget, Cost, Miss
from kind_export.report.words import name_choice
from kind_export.request import ExportRequest
from kind_export.rewrites.truncate_ranks import may_cut
from kind_export.verify.reference import Reference, Trajectory
from kind_runtimes.documents.reports.document import BudgetEntry, ChoiceEntry, PlanEntry

# Shares of the learngene's rank and of the asked steps that are tried.
_RANK_SHARES = (1.0, 0.875, 0.75, 0.625, 0.5)
_STEP_SHARES = (1.0, 0.75, 0.6, 0.5, 0.4)
_MIN_STEPS = 4
_FORMS = ("auto", "dense")


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One way to export. `max_rank` None keeps all ranks; `forms` as in `RewriteOptions`."""

    precision: PrecisionName
    steps: int
    max_rank: int | None = None
    forms: str = "auto"

    def describe(self) -> str:
        """`int8, rank 64, dense matrices, 12 steps`."""
        return name_choice(self.precision, self.max_rank, self.forms, self.steps)

    def apply(self, request: ExportRequest) -> ExportRequest:
        """The request with what was chosen filled in, and no budget left to plan."""
        return replace(request, **asdict(self), budget=NO_BUDGET)


@dataclass(frozen=True, kw_only=True, slots=True)
class Considered:
    """A choice with what it was forecast to cost. `error_db`: closeness, where it was measured."""

    choice: Choice
    cost: Cost
    misses: tuple[Miss, ...]
    error_db: float | None = None
    below_gate: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Choices that fit the budget, the best first, and all that were considered."""

    budget: Budget
    device: str | None
    ranked: tuple[Considered, ...]
    considered: tuple[Considered, ...]

    def to_dict(self) -> PlanEntry:
        """For the report of an export by the best choice."""
        return {
            "budget": cast(BudgetEntry, {**asdict(self.budget), "device": self.device}),
            "chosen": describe_considered(self.ranked[0]),
            "considered": [describe_considered(one) for one in self.considered],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanInputs:
    """What is fixed before choosing: `expected` is the first class's picture, `precisions` those that may be chosen."""

    request: ExportRequest
    reference: Reference
    expected: Trajectory
    target: str
    precisions: tuple[PrecisionName, ...]
    device: Device | None


def list_choices(inputs: PlanInputs) -> Iterator[Choice]:
    is_timed = inputs.request.budget.max_image_ms is not None
    rank = inputs.reference.checkpoint.config.dit.learngene_rank
    steps = inputs.reference.sampling.steps
    shares = _STEP_SHARES if is_timed else _STEP_SHARES[:1]
    distillation = inputs.reference.checkpoint.config.diffusion.distillation
    if distillation is not None:  # of other numbers of steps it has learnt nothing
        fewer = dict.fromkeys((steps, *(one for one in distillation.steps if is_timed and one < steps)))
    else:
        fewer = dict.fromkeys(min(steps, max(_MIN_STEPS, round(steps * share))) for share in shares)
    ranks: dict[int | None, None] = {inputs.request.max_rank: None}
    if rank is not None:
        full = min(rank, inputs.request.max_rank or rank)
        ranks |= {max(1, round(full * share)): None for share in _RANK_SHARES if share < 1}
    for num_steps in fewer:
        for max_rank in ranks:
            for precision in inputs.precisions:
                for forms in _FORMS if rank is not None else _FORMS[:1]:
                    yield Choice(precision=precision, steps=num_steps, max_rank=max_rank, forms=forms)


def best_forms(fitting: Sequence[Considered]) -> list[Considered]:
    """Of choices that differ in form alone, which changes no result, the quickest or else the smallest."""
    best: dict[Choice, Considered] = {}
    for one in fitting:
        key = replace(one.choice, forms="auto")
        known = best.get(key)
        if known is None or _weight(one.cost) < _weight(known.cost):
            best[key] = one
    return list(best.values())


def _weight(cost: Cost) -> tuple[float, int]:
    return cost.step_ms or 0.0, cost.size_bytes


def is_finer(one: Choice, other: Choice) -> bool:
    """Whether `one` has at least as many bits, ranks and steps as `other`, and more of one of them."""
    a, b = (
        (PRECISIONS[c.precision].weight_bits, float("inf") if c.max_rank is None else c.max_rank, c.steps)
        for c in (one, other)
    )
    return a != b and all(x >= y for x, y in zip(a, b, strict=True))


def gate_db(choice: Choice, inputs: PlanInputs) -> float:
    """What its artifact is held to: `energy` cuts ranks whatever is chosen."""
    is_cut = may_cut(inputs.reference.checkpoint.config.dit, choice.max_rank, inputs.request.energy)
    return PRECISIONS[APPROXIMATE if is_cut else choice.precision].trajectory_db


def describe_considered(one: Considered) -> ChoiceEntry:
    described = {
        **asdict(one.choice),
        **asdict(one.cost),
        "error_db": one.error_db,
        "below_gate": one.below_gate,
        "misses": [miss.describe() for miss in one.misses],
    }
    return cast(ChoiceEntry, described)
