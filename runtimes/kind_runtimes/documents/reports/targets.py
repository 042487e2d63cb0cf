"""The programs of a report, by target."""

from __future__ import annotations

from typing import Annotated, TypedDict

from kind_runtimes.documents.parts import Milliseconds, Positive, Precision, Shape
from kind_runtimes.documents.schema import Def, NamesOnly, Unsaid


class ReportTensor(TypedDict):
    """An input or output of a program."""

    name: str
    shape: Shape
    dtype: str


Tensor = Annotated[ReportTensor, Def("tensor")]


class ReportProgram(TypedDict):
    """A program and its size."""

    file: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    size_bytes: Positive


class ReportParity(TypedDict):
    """How close programs came to the eager model, and what was asked of them."""

    verified_by: str
    threshold_db: float
    trajectory_psnr_db: float
    step_threshold_db: float
    step_psnr_db: float
    decode_threshold_db: float | None
    decode_psnr_db: float | None


class Delegation(TypedDict):
    """Where a step's time went."""

    delegate_share: Annotated[float, {"minimum": 0, "maximum": 1}]
    run_ms: Milliseconds
    portable_ms: dict[str, Milliseconds]


class MeasuredHere(TypedDict):
    """What the host measured."""

    runtime: Annotated[str, Unsaid()]
    engine: Annotated[str, Unsaid()]
    step_ms: Milliseconds
    step_min_ms: Milliseconds
    step_max_ms: Milliseconds
    image_ms: Milliseconds
    load_ms: Milliseconds
    repeats: Positive


class ReportTarget(TypedDict):
    """What the bundle holds for one target."""

    precision: Precision
    size_bytes: Positive
    programs: Annotated[dict[str, ReportProgram], {"required": ["step"]}]
    parity: Annotated[ReportParity, NamesOnly()]
    lowering: dict[str, dict[str, object]]
    delegation: Annotated[
        Delegation | None, "Where a step's time went by the runtime's own trace; null where there is none."
    ]
    measured: Annotated[MeasuredHere | None, "Milliseconds on this host; null where the program cannot run on it."]
