"""What each program of a report does, counted from its file."""

from __future__ import annotations

from typing import Annotated, TypedDict

from kind_runtimes.documents.parts import Natural, Positive
from kind_runtimes.documents.schema import Alike, Def, NamesOnly


class SumEntry(TypedDict):
    """Operators of one class or layer together."""

    name: str
    num_ops: Positive
    flops: Natural
    bytes_moved: Natural
    weight_bytes: Natural


Sum = Annotated[SumEntry, "Operators of one class or layer together.", Def("sum")]


class ProgramFlops(TypedDict):
    """By convention."""

    full: int
    paper: int


class LintEntry(TypedDict):
    """What of a program runs outside the backend that makes it fast."""

    basis: object
    backends: object
    classes: object
    findings: object


class WorkEntry(TypedDict):
    """What a program does, counted from its file."""

    flops: Annotated[
        ProgramFlops,
        Alike(Natural),
        "Of one run, both guidance halves. full: 2 x multiply-adds of layers and attention. paper: without "
        "attention, with bias and norm terms.",
    ]
    bytes_moved: Annotated[Natural, "Memory traffic of one run if nothing stays in a cache."]
    weight_bytes: Annotated[Natural, "Constants, each once, as stored."]
    peak_activation_bytes: Annotated[Natural, "Most that is alive at a time, inputs and outputs among it."]
    num_ops: Positive
    num_delegates: Annotated[Natural, "Parts handed to an accelerated backend."]
    by_class: Annotated[list[Sum], {"minItems": 1}]
    by_layer: Annotated[list[Sum], "Empty where the file names no layers."]
    delegation: Annotated[LintEntry, NamesOnly()]


Work = Annotated[WorkEntry, Def("work")]
