"""An export's request -> its planner, and the finished artifact -> the budget once more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kind_bench.forecasting.devices import Device
from kind_core.errors import BudgetError
from kind_core.samplers import Sampling
from kind_export.budget import Budget
from kind_export.planning.choice import PlanInputs
from kind_export.planning.plan import Planner, artifact_cost
from kind_export.prepared import Prepared
from kind_export.report.collect import choose_devices
from kind_export.report.work import Works
from kind_export.target_rows import TARGET_ROWS
from kind_export.verify.reference import Reference


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
    """Hold the artifact itself against the budget; raises BudgetError."""
    (name,) = works
    size = sum(file.stat().st_size for file in (folder / name).rglob("*") if file.is_file())
    misses = artifact_cost(works[name], size, sampling.guided, devices[0] if budget.is_timed else None).misses(budget)
    if misses:
        missed = "; ".join(miss.describe() for miss in misses)
        raise BudgetError(f"the exported {name} programs miss {missed}; nothing was published", "allow a little more")
