"""The plots of a run and of a suite: values over the images seen.

`losses.png` of a run has the training loss, smoothed, and the held-out loss; `curve.png` of a suite a line a method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kind_core.files.staging import PART, staged

_LOSS_COLOURS = {"training loss": "#9db7d5", "training loss, smoothed": "#1f5fa8", "held-out loss": "#c8401f"}
_MAX_POINTS = 800
# Distinct also without colour vision (Okabe and Ito); then again dashed with squares, then dotted with triangles.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
_DASHES = ((), (14, 8), (3, 6))  # pixels drawn and left out by turns
_CORNERS = (0, 4, 3)  # of the marks at the points
_LEGEND_STEP, _SAMPLE = 28, 40

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Point = tuple[float, float]
Points = Sequence[Point]


@dataclass(frozen=True, kw_only=True, slots=True)
class Axes:
    """Where the axes lie, in pixels."""

    left: int
    top: int
    right: int
    bottom: int

    def draw(
        self, pen: ImageDraw.ImageDraw, font: Font, value_at: Callable[[float], float], last: float, legend: str
    ) -> None:
        """Five lines from 0 images to `last`, and at the values of `value_at`, told a share of the height."""
        pen.line((self.left, self.top, self.left, self.bottom, self.right, self.bottom), "#555", 1)
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            x, y = self.place(share, share)
            pen.line((self.left, y, self.right, y), "#e4e4e4", 1)
            pen.text((self.left - 8, y), f"{value_at(share):.3g}", "#333", font, anchor="rm")
            pen.text((x, self.bottom + 14), f"{share * last:,.0f}", "#333", font, anchor="mm")
        pen.text(((self.left + self.right) / 2, self.bottom + 42), legend, "#333", font, anchor="mm")

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The pixel at these shares of width and height."""
        return self.left + (self.right - self.left) * x, self.bottom - (self.bottom - self.top) * y


_LOSSES, _CURVES = Axes(left=90, top=48, right=930, bottom=420), Axes(left=90, top=24, right=640, bottom=470)


def draw_losses(metrics: Sequence[Mapping[str, float]], file: Path) -> None:
    """Draw the plot of a run's metrics; without two points there is nothing to draw."""
    curves = _find_curves(metrics)
    points = [point for curve in curves.values() for point in curve]
    if max((len(curve) for curve in curves.values()), default=0) < 2:
        return
    picture = Image.new("RGB", (960, 480), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(16)
    low, high = _span([y for _, y in points])
    last = max(x for x, _ in points)

    def place(point: Point) -> Point:
        x, y = point
        return _LOSSES.place(x / last, min(1.0, math.log(y / low) / math.log(high / low)))

    legend = "images seen (losses on a logarithmic scale)"
    _LOSSES.draw(pen, font, lambda share: low * (high / low) ** share, last, legend)
    for number, (name, curve) in enumerate(curves.items()):
        colour = _LOSS_COLOURS[name]
        places = [place(point) for point in curve]
        if len(places) > 1:
            pen.line(places, colour, 1 if name == "training loss" else 3, joint="curve")
        if name == "held-out loss":
            for x, y in places:
                pen.ellipse((x - 4, y - 4, x + 4, y + 4), colour)
        pen.line((_LOSSES.left + 260 * number, 24, _LOSSES.left + 260 * number + 24, 24), colour, 4)
        pen.text((_LOSSES.left + 260 * number + 32, 24), name, "black", font, anchor="lm")
    with staged(file, PART, force=True) as temporary:
        picture.save(temporary, format="PNG")


def _find_curves(metrics: Sequence[Mapping[str, float]]) -> dict[str, list[Point]]:
    """The curves that have points, thinned out; what is not finite or not above zero has no place on them."""
    lines = [one for one in metrics if math.isfinite(one.get("images", math.nan))]
    raw = {
        name: [(one["images"], one[key]) for one in lines if 0 < one.get(key, 0) < math.inf]
        for name, key in (("training loss", "loss"), ("held-out loss", "held_out_loss"))
    }
    trained = raw["training loss"]
    window = max(1, len(trained) // 50)
    smooth = [
        (trained[i][0], sum(y for _, y in trained[max(0, i - window + 1) : i + 1]) / min(window, i + 1))
        for i in range(0, len(trained), max(1, len(trained) // _MAX_POINTS))
    ]
    thin = trained[:: max(1, len(trained) // _MAX_POINTS)]
    curves = {"training loss": thin, "training loss, smoothed": smooth, "held-out loss": raw["held-out loss"]}
    return {name: curve for name, curve in curves.items() if curve}


def _span(values: Sequence[float]) -> Point:
    """What the axis shows: most values, with room; a few far outliers of the first steps may leave it."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[min(len(ordered) - 1, int(0.995 * len(ordered)))]
    return low / 1.1, max(high, low) * 1.1


def draw_curves(curves: Mapping[str, Points], what: str, file: Path) -> None:
    """Draw all curves, (images, value) each, on linear axes; `what` names the values."""
    points = [point for curve in curves.values() for point in curve]
    last = max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    margin = (high - low or abs(high) or 1) * 0.05
    low, high = low - margin, high + margin
    picture = Image.new("RGB", (1040, 540), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(15)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x, y = point
        return _CURVES.place(x / last, (y - low) / (high - low))

    _CURVES.draw(pen, font, lambda share: low + share * (high - low), last, f"{what} over training images seen")
    for number, (name, curve) in enumerate(curves.items()):
        style, row = (
            number // len(_COLOURS) % len(_DASHES),
            min(_LEGEND_STEP, (_CURVES.bottom - _CURVES.top) / len(curves)),
        )
        y = _CURVES.top + row * number + 8
        legend = [(_CURVES.right + 20, y), (_CURVES.right + 20 + _SAMPLE, y)]
        for path, marks in ((list(map(place, curve)), None), (legend, [(_CURVES.right + 20 + _SAMPLE / 2, y)])):
            _draw_line(pen, path, marks or path, _COLOURS[number % len(_COLOURS)], style)
        pen.text((_CURVES.right + 28 + _SAMPLE, y), name, "black", font, anchor="lm")
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
