"""`losses.png` of a run: the training loss, smoothed, and the held-out loss, over the images seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from kind_core.files.staging import PART, staged
from kind_train.axes import Axes
from kind_train.run.metrics import read_metrics

_SIZE = (960, 480)
_AXES = Axes(left=90, top=48, right=930, bottom=420)
_COLOURS = {"training loss": "#9db7d5", "training loss, smoothed": "#1f5fa8", "held-out loss": "#c8401f"}
_MAX_POINTS = 800

Point = tuple[float, float]


def draw_losses(metrics: Path, file: Path) -> None:
    """Draw the plot from the lines of metrics.jsonl; without two points there is nothing to draw."""
    curves = _read_curves(metrics)
    points = [point for curve in curves.values() for point in curve]
    if max((len(curve) for curve in curves.values()), default=0) < 2:
        return
    picture = Image.new("RGB", _SIZE, "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(16)
    low, high = _span([y for _, y in points])
    last = max(x for x, _ in points)

    def place(point: Point) -> Point:
        x, y = point
        return _AXES.place(x / last, min(1.0, math.log(y / low) / math.log(high / low)))

    legend = "images seen (losses on a logarithmic scale)"
    _AXES.draw(pen, font, lambda share: low * (high / low) ** share, last, legend)
    for number, (name, curve) in enumerate(curves.items()):
        colour = _COLOURS[name]
        places = [place(point) for point in curve]
        if len(places) > 1:
            pen.line(places, colour, 1 if name == "training loss" else 3, joint="curve")
        if name == "held-out loss":
            for x, y in places:
                pen.ellipse((x - 4, y - 4, x + 4, y + 4), colour)
        pen.line((_AXES.left + 260 * number, 24, _AXES.left + 260 * number + 24, 24), colour, 4)
        pen.text((_AXES.left + 260 * number + 32, 24), name, "black", font, anchor="lm")
    with staged(file, PART, force=True) as temporary:
        picture.save(temporary, format="PNG")


def _read_curves(metrics: Path) -> dict[str, list[Point]]:
    """The curves that have points, thinned out; what is not finite or not above zero has no place on them."""
    lines = [record for _, record in read_metrics(metrics.parent) if math.isfinite(record.get("images", math.nan))]
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
