"""`curve.png` of a suite: a line a method over the training images seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kind_core.files.staging import PART, staged
from kind_train.axes import Axes

_SIZE = (1040, 540)
_AXES = Axes(left=90, top=24, right=640, bottom=470)
# Distinct also without colour vision (Okabe and Ito); then again dashed with squares, then dotted with triangles.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
_DASHES = ((), (14, 8), (3, 6))  # pixels drawn and left out by turns
_CORNERS = (0, 4, 3)  # of the marks at the points
_LEGEND_STEP, _SAMPLE = 28, 40

Points = Sequence[tuple[float, float]]


def draw_curves(curves: Mapping[str, Points], what: str, file: Path) -> None:
    """Draw all curves, (images, value) each, on linear axes; `what` names the values."""
    points = [point for curve in curves.values() for point in curve]
    last = max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    margin = (high - low or abs(high) or 1) * 0.05
    low, high = low - margin, high + margin
    picture = Image.new("RGB", _SIZE, "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(15)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x, y = point
        return _AXES.place(x / last, (y - low) / (high - low))

    _AXES.draw(pen, font, lambda share: low + share * (high - low), last, f"{what} over training images seen")
    for number, (name, curve) in enumerate(curves.items()):
        style, row = number // len(_COLOURS) % len(_DASHES), min(_LEGEND_STEP, (_AXES.bottom - _AXES.top) / len(curves))
        y = _AXES.top + row * number + 8
        legend = [(_AXES.right + 20, y), (_AXES.right + 20 + _SAMPLE, y)]
        for path, marks in ((list(map(place, curve)), None), (legend, [(_AXES.right + 20 + _SAMPLE / 2, y)])):
            _draw_line(pen, path, marks or path, _COLOURS[number % len(_COLOURS)], style)
        pen.text((_AXES.right + 28 + _SAMPLE, y), name, "black", font, anchor="lm")
    with staged(file, PART, force=True) as temporary:
        picture.save(temporary, format="PNG")


def _draw_line(pen: ImageDraw.ImageDraw, path: Points, marks: Points, colour: str, style: int) -> None:
    """`path` in a style's dashes, with its marks."""
    for piece in _dash(path, _DASHES[style]):
        pen.line(piece, colour, 3, joint="curve")
    for x, y in marks:
        if _CORNERS[style]:
            pen.regular_polygon((x, y, 5), _CORNERS[style], fill=colour)
        else:
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), colour)


def _dash(path: Points, dashes: Sequence[int]) -> Iterator[Points]:
    """The pieces of `path` that are drawn: all of it without dashes."""
    if not dashes:
        yield path
        return
    x, y = np.array(path).T
    along = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    for start in np.arange(0, along[-1], sum(dashes)):
        end = min(start + dashes[0], along[-1])
        places = [start, *along[(along > start) & (along < end)], end]
        yield list(zip(np.interp(places, along, x).tolist(), np.interp(places, along, y).tolist(), strict=True))
