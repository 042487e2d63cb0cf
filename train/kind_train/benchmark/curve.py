"""`curve.png` of a suite: a line a method over the training images seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from kind_core.files.staging import PART, staged
from kind_train.axes import Axes

_SIZE = (960, 540)
_AXES = Axes(left=90, top=24, right=640, bottom=470)
# Distinct also without colour vision (Okabe and Ito), then again with other widths.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
_LEGEND_STEP = 28

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
        colour, width = _COLOURS[number % len(_COLOURS)], 3 if number < len(_COLOURS) else 1
        pen.line([place(point) for point in curve], colour, width, joint="curve")
        for x, y in map(place, curve):
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), colour)
        y = _AXES.top + _LEGEND_STEP * number + 8
        pen.line((_AXES.right + 24, y, _AXES.right + 48, y), colour, width)
        pen.text((_AXES.right + 56, y), name, "black", font, anchor="lm")
    with staged(file, PART, force=True) as temporary:
        picture.save(temporary, format="PNG")
