"""The figures of a cell of a suite, as its file holds them beside arrays of what was drawn and seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NotRequired, TypedDict

from kind_train.evaluate.against import FigureEntry

# what is measured of the weights themselves
OfWeights = Literal["tailor_norm", "gradient_share", "component_gradient_share", "tailor_gradient_share"]


class RowFigures(TypedDict):
    """A row of a suite that only draws: which judge saw how many pictures, and what it made of them."""

    method: str
    title: str
    num_images: int
    judge: str
    entropy: FigureEntry
    variance: FigureEntry
    kurtosis: FigureEntry
    called_as_asked: NotRequired[FigureEntry]
    called_as_tailor: NotRequired[FigureEntry]


class PointFigures(TypedDict):
    """A trained checkpoint after `images`; `curve` is (images, held-out loss), `overall` of what was drawn.

    `processor_seconds` is not there in cells of older versions.
    """

    images: int
    curve: Sequence[tuple[float, float]]
    seconds_per_step: float | None
    processor_seconds: NotRequired[float | None]
    held_out_loss: NotRequired[float]
    num_images: NotRequired[int]
    overall: NotRequired[dict[str, FigureEntry]]
    tailor_norm: NotRequired[FigureEntry]
    gradient_share: NotRequired[FigureEntry]
    component_gradient_share: NotRequired[FigureEntry]
    tailor_gradient_share: NotRequired[FigureEntry]


class CellFigures(PointFigures):
    """A cell of a suite that trains: the last of its points."""

    arm: str
    title: str
    task: str
    seed: int
    classes: list[str]
    trained: NotRequired[int]
    flops: NotRequired[int]
    points: NotRequired[list[PointFigures]]
