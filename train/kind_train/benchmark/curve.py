"""`curve.png` of a suite: a line a method over the training images seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from kind_core.files.staging import PART, staged

_SIZE = (960, 540)
_LEFT, _TOP, _RIGHT, _BOTTOM = 90, 24, 640, 470  # of the axes, in pixels
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
        return _LEFT + (_RIGHT - _LEFT) * x / last, _BOTTOM - (_BOTTOM - _TOP) * (y - low) / (high - low)

    _draw_axes(pen, font, low, high, last, what)
    for number, (name, curve) in enumerate(curves.items()):
        colour, width = _COLOURS[number % len(_COLOURS)], 3 if number < len(_COLOURS) else 1
        pen.line([place(point) for point in curve], colour, width, joint="curve")
        for x, y in map(place, curve):
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), colour)
        y = _TOP + _LEGEND_STEP * number + 8
        pen.line((_RIGHT + 24, y, _RIGHT + 48, y), colour, width)
        pen.text((_RIGHT + 56, y), name, "black", font, anchor="lm")
    with staged(file, PART, force=True) as temporary:
        picture.save(temporary, format="PNG")


def _draw_axes(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    low: float,
    high: float,
    last: float,
    what: str,
) -> None:
    pen.line((_LEFT, _TOP, _LEFT, _BOTTOM, _RIGHT, _BOTTOM), "#555", 1)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y, x = _BOTTOM - share * (_BOTTOM - _TOP), _LEFT + share * (_RIGHT - _LEFT)
        pen.line((_LEFT, y, _RIGHT, y), "#e4e4e4", 1)
        pen.text((_LEFT - 8, y), f"{low + share * (high - low):.3g}", "#333", font, anchor="rm")
        pen.text((x, _BOTTOM + 14), f"{share * last:,.0f}", "#333", font, anchor="mm")
    pen.text(((_LEFT + _RIGHT) / 2, _BOTTOM + 44), f"{what} over training images seen", "#333", font, anchor="mm")
