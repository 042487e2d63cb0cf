"""The model of a report: numbers, matrices, FLOPs; and what each of its programs does, counted from its file."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from kind_runtimes.documents.parts import Natural, Positive, Shape
from kind_runtimes.documents.schema import Alike, Def, NamesOnly


class Parameters(TypedDict):
    """Numbers of a model."""

    dense_twin: int
    composed: int
    stored_in_step: int


class Conditioning(TypedDict):
    """Numbers that condition the network."""

    stored: int
    replaces: int


class Twins(TypedDict):
    """A figure of the dense twin and of the composed model."""

    dense_twin: int
    composed: int


class FlopsPerPass(TypedDict):
    """By convention."""

    paper: Twins
    full: Twins


class Products(TypedDict):
    """Multiplications a token of either form."""

    rank: int
    factored: int
    dense: int


class MatrixEntry(TypedDict):
    """One matrix of a block."""

    form: Literal["dense", "factored"]
    joined: Annotated[Positive, "Matrices of this shape that became one."]
    shape: Annotated[Shape, "(out, in) of each."]
    live_rank: int | None
    products_per_token: Annotated[
        Products | None,
        Alike(Positive),
        "Multiplications of either form, the padded rank counted; null for a dense model.",
    ]


class ModelEntry(TypedDict):
    """The model that was exported."""

    num_tokens: Positive
    live_rank: Annotated[int | None, "Components of a matrix for one class; null for a dense model."]
    parameters: Annotated[
        Parameters,
        Alike(Positive),
        "dense_twin: the same DiT, not decomposed. composed: learngene and the tailors of these classes. "
        "stored_in_step: numbers in the step program, its tables among them.",
    ]
    conditioning: Annotated[
        Conditioning,
        Alike(Positive),
        "Numbers that condition the network on step and class, as stored, and the parameters that they replace.",
    ]
    matrices_of_a_block: Annotated[dict[str, Annotated[MatrixEntry, Def("matrix")]], {"minProperties": 1}]
    flops_per_pass: Annotated[
        FlopsPerPass,
        Alike(Annotated[Twins, Alike(Positive)]),
        "One pass of one sample. paper: 2 x MAC of linear and convolution layers, bias, norm and scaling terms. "
        "full: 2 x MAC of those layers and of attention.",
    ]
    flops_per_step_executed: Annotated[Positive, "Full count of the exported step, all its passes."]


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
