"""How a budget was met."""

from __future__ import annotations

from typing import Annotated, TypedDict

from kind_runtimes.documents.schema import Def, NamesOnly


class BudgetEntry(TypedDict):
    """What was asked for."""

    max_size_bytes: int | None
    max_step_ms: float | None
    max_image_ms: float | None
    device: str | None


class ChoiceEntry(TypedDict):
    """One choice within a budget, and what it costs."""

    precision: str
    max_rank: int | None
    forms: str
    steps: int
    size_bytes: int
    step_ms: float | None
    image_ms: float | None
    error_db: float | None
    below_gate: bool
    misses: list[str]


Choice = Annotated[ChoiceEntry, NamesOnly(), Def("choice")]


class PlanEntry(TypedDict):
    """How a budget was met."""

    budget: Annotated[BudgetEntry, NamesOnly()]
    chosen: Choice
    considered: Annotated[list[Choice], {"minItems": 1}]
