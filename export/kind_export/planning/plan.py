"""The choice of precision, rank, form and steps that meets a budget with the least measured error.

Every combination is forecast. Of those that fit, one that has fewer bits, ranks and steps than another that fits too
cannot be closer; it counts only where none of the finer holds its gate, which may be narrower. Of the rest the error is
measured: the picture's latents against the gated model's, in PyTorch, with the weights rounded as the precision rounds
them. What decides in the end are the gates on the artifact.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from kind_bench.forecasting.devices import Device
from kind_core.console import count_of
from kind_core.errors import BudgetError
from kind_core.files.regular_files import measure_bytes
from kind_core.samplers import Sampling
from kind_export.budget import Budget, Cost
from kind_export.planning.choice import (
    Choice,
    Considered,
    Plan,
    PlanInputs,
    best_forms,
    gate_db,
    is_finer,
    list_choices,
)
from kind_export.planning.space import Space, likely_times, timed_cost
from kind_export.prepared import Prepared
from kind_export.report.collect import choose_devices
from kind_export.report.work import Works
from kind_export.target_rows import TARGET_ROWS
from kind_export.verify.reference import Reference


class Planner:
    """Makes plans for one export; what was counted and measured for one plan serves the next."""

    def __init__(self, inputs: PlanInputs) -> None:
        self.inputs = inputs
        self.budget = inputs.request.budget
        self._space = Space(inputs)
        self._measured: dict[Choice, Considered] = {}

    def plan(self, on_stage: Callable[[str], None], without: Collection[Choice] = ()) -> Plan:
        """Forecast every choice and measure those worth it, `without` those whose artifacts did not hold.

        Raises BudgetError when none meets the budget, naming what the closest misses and by how much.
        """
        on_stage("forecasting what meets the budget")
        considered = [
            Considered(choice=choice, cost=cost, misses=cost.misses(self.budget))
            for choice in list_choices(self.inputs)
            for cost in (self._space.cost(choice),)
        ]
        fitting = best_forms([one for one in considered if not one.misses and one.choice not in without])
        if not fitting:
            raise _unmet([one for one in considered if one.misses], self.inputs)
        measured: list[Considered] = []
        while fitting and all(one.below_gate for one in measured):  # what is coarser may have a gate that it holds
            worth = [one for one in fitting if not any(is_finer(other.choice, one.choice) for other in fitting)]
            on_stage(f"measuring the error of {count_of(len(worth), 'choice')}")
            measured += map(self._measure, worth)
            fitting = [one for one in fitting if one not in worth]
        return self._rank(considered, measured)

    def _measure(self, one: Considered) -> Considered:
        if one.choice not in self._measured:
            self._measured[one.choice] = self._space.measure(one)
        return self._measured[one.choice]

    def _rank(self, considered: Sequence[Considered], measured: Sequence[Considered]) -> Plan:
        ranked = sorted((one for one in measured if not one.below_gate), key=lambda one: -(one.error_db or 0))
        if not ranked:
            best = max(measured, key=lambda one: one.error_db or 0)
            gate = gate_db(best.choice, self.inputs)
            raise BudgetError(
                f"what fits the budget is too far from the model: {best.choice.describe()} comes to "
                f"{best.error_db:.1f} dB, expected {gate:.0f} or more",
                "allow more size or time",
            )
        return Plan(
            budget=self.budget,
            device=self.inputs.device.id if self.inputs.device else None,
            ranked=tuple(ranked),
            considered=tuple(self._measured.get(one.choice, one) for one in considered),
        )


def make_planner(prepared: Prepared) -> Planner:
    """What plans within the budget of a request."""
    job, request = prepared.job, prepared.job.request
    (name,) = job.targets
    row, asked = TARGET_ROWS[name], request.precision
    offered = row.loadable_precisions(request.min_ios) if asked is None else (row.choose_precision(asked),)
    inputs = PlanInputs(
        request=request,
        reference=Reference(checkpoint=prepared.checkpoint, sampling=job.sampling),
        expected=prepared.make_verifier(job).trajectories[0],
        target=name,
        precisions=offered,
        device=choose_devices(request.devices)[0] if request.budget.is_timed else None,
    )
    return Planner(inputs)


def require_budget(budget: Budget, works: Works, folder: Path, sampling: Sampling, devices: Sequence[Device]) -> None:
    """Hold the artifact itself against the budget, by its own size and its own counted work; raises BudgetError."""
    (name,) = works
    size = measure_bytes(folder / name)
    times = likely_times(works[name], devices[0]) if budget.is_timed else None
    cost = Cost(size_bytes=size) if times is None else timed_cost(size, times, sampling.guided)
    misses = cost.misses(budget)
    if misses:
        missed = "; ".join(miss.describe() for miss in misses)
        raise BudgetError(f"the exported {name} programs miss {missed}; nothing was published", "allow a little more")


def _unmet(missing: Sequence[Considered], inputs: PlanInputs) -> BudgetError:
    if not missing:
        return BudgetError("no choice within the budget holds as an artifact", "export without a budget to see why")
    closest = min(missing, key=lambda one: max(miss.factor for miss in one.misses))
    where = f" on {inputs.device.name} (forecast)" if inputs.device else ""
    missed = "; ".join(miss.describe() for miss in closest.misses)
    return BudgetError(
        f"no choice meets the budget{where}: the closest, {closest.choice.describe()}, misses {missed}",
        "allow more, or another --target, --device or --guidance-interval",
    )
