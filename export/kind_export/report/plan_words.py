"""How a budget was met, in words for the page and for the command line."""

from __future__ import annotations

from typing import TypedDict

from kind_export.report.words import format_bytes, format_db, format_ms, join_words
from kind_runtimes.documents.reports.plan import BudgetEntry, ChoiceEntry, PlanEntry

_MAX_ROWS = 12


class PlanWords(TypedDict):
    """A budget and its choice as sentences, and the choices worth a row."""

    budget: str
    chosen: str
    rows: list[dict[str, object]]
    rest: str


def describe_plan(plan: PlanEntry) -> PlanWords:
    """The budget and the choice as sentences, and the choices worth a row: measured ones, then the nearest misses."""
    chosen = plan["chosen"]
    ranked = sorted(plan["considered"], key=_interest)
    rows = [_describe_row(one, chosen) for one in ranked[:_MAX_ROWS]]
    left = len(ranked) - len(rows)
    return {
        "budget": f"Asked for: {describe_budget(plan['budget'])}.",
        "chosen": f"Chosen, because it fits and comes closest to the model: {_name(chosen)}, "
        f"{format_db(chosen['error_db'])}.",
        "rows": rows,
        "rest": f"{left} more were considered, see report.json." if left else "",
    }


def _interest(one: ChoiceEntry) -> tuple[bool, float, bool, int, int]:
    """Measured ones by closeness, then those that miss the fewest limits, then what fits but is coarser throughout."""
    is_measured, misses = one["error_db"] is not None, len(one["misses"])
    return (not is_measured, -(one["error_db"] or 0), misses == 0, misses, one["size_bytes"])


def describe_budget(budget: BudgetEntry) -> str:
    """`at most 2.00 MB and 1.0 ms a step on apple-a18`."""
    limits = []
    if budget["max_size_bytes"] is not None:
        limits.append(format_bytes(budget["max_size_bytes"]))
    if budget["max_step_ms"] is not None:
        limits.append(f"{format_ms(budget['max_step_ms'])} a step on {budget['device']}")
    if budget["max_image_ms"] is not None:
        limits.append(f"{format_ms(budget['max_image_ms'])} a picture on {budget['device']}")
    return f"at most {join_words(limits)}"


def name_choice(precision: str, max_rank: int | None, forms: str, steps: int) -> str:
    """`int8, rank 64, dense matrices, 12 steps`."""
    rank = "all ranks" if max_rank is None else f"rank {max_rank}"
    form = "" if forms == "auto" else f", {forms} matrices"
    return f"{precision}, {rank}{form}, {steps} steps"


def _name(one: ChoiceEntry) -> str:
    return name_choice(one["precision"], one["max_rank"], one["forms"], one["steps"])


def _describe_row(one: ChoiceEntry, chosen: ChoiceEntry) -> dict[str, object]:
    fits = "fits" if one["error_db"] is not None else "fits, but has no more of anything than another that does"
    verdict = "; ".join(one["misses"]) or ("below its gate" if one["below_gate"] else fits)
    return {**one, "name": _name(one), "is_chosen": _name(one) == _name(chosen), "verdict": verdict}
