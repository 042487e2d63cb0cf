"""The model of a report: numbers, matrices, FLOPs."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from kind_runtimes.documents.parts import Positive, Shape
from kind_runtimes.documents.schema import Alike, Def


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
