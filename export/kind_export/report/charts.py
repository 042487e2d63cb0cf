"""Geometry of the charts on the report page: positions and words, which the templates draw as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kind_export.report.words import format_bytes, format_count, format_ms, format_range, name_forecast
from kind_runtimes.documents.reports.document import ForecastEntry, RooflinePoint

Chart = dict[str, object]  # what a template draws
Part = Literal["step", "picture"]  # of a forecast
# A plot has the size of a phone's column, so that its words stay readable there.
WIDTH, HEIGHT = 340, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 14, 40
_ROW = 54
_Time = Literal["floor_ms", "low_ms", "likely_ms", "high_ms"]
_PLACED: tuple[_Time, ...] = ("floor_ms", "low_ms", "likely_ms", "high_ms")
_FRAME = {
    "width": WIDTH,
    "height": HEIGHT,
    "left": _LEFT,
    "right": WIDTH - _RIGHT,
    "top_y": _TOP,
    "bottom": HEIGHT - _BOTTOM,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LogAxis:
    """A logarithmic axis from a power of ten to another, over pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> LogAxis:
        """The decades that hold all `values`."""
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        return cls(low=float(low), high=float(max(high, low + 1)), start=start, end=end)

    def place(self, value: float) -> float:
        """Pixels of a value, within the axis."""
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return round(self.start + min(1.0, max(0.0, share)) * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """The powers of ten, every second one where there are many."""
        step = 1 if self.high - self.low <= 5 else 2
        return [10.0**power for power in range(int(self.low), int(self.high) + 1, step)]


def draw_bars(title: str, values: Mapping[str, float], unit: str, subject: str | None = None) -> Chart:
    """Horizontal bars, one a name; `unit` is `bytes` or `FLOPs`, `subject` the one that the others stand beside."""
    top = max(values.values(), default=0) or 1
    words = format_bytes if unit == "bytes" else format_count
    bars = [
        {
            "label": name,
            "value": words(round(value)),
            "percent": round(100 * value / top, 2),
            "is_subject": subject in (name, None),
        }
        for name, value in values.items()
    ]
    summary = f"{title}: " + ", ".join(f"{bar['label']} {bar['value']}" for bar in bars)
    return {"title": title, "bars": bars, "summary": summary}


def draw_columns(title: str, values: Mapping[str, float], unit: str) -> Chart:
    """Upright columns in the order given, such as the layers of a model; only every few are named."""
    top = max(values.values(), default=0) or 1
    words = format_bytes if unit == "bytes" else format_count
    width = (WIDTH - _LEFT - _RIGHT) / max(1, len(values))
    every = math.ceil(len(values) / 8)
    columns = []
    for index, (name, value) in enumerate(values.items()):
        height = (HEIGHT - _TOP - _BOTTOM) * value / top
        columns.append(
            {
                "x": round(_LEFT + index * width + 0.1 * width, 1),
                "width": round(0.8 * width, 1),
                "y": round(HEIGHT - _BOTTOM - height, 1),
                "height": round(height, 1),
                "label": name.removeprefix("blocks.") if index % every == 0 or not name.startswith("blocks.") else "",
                "name": name,
                "value": words(round(value)),
            }
        )
    summary = f"{title}: " + ", ".join(f"{one['name']} {one['value']}" for one in columns)
    return {"title": title, "columns": columns, "top": words(round(top)), "summary": summary, **_FRAME}


def draw_roofline(entry: ForecastEntry) -> Chart | None:
    """The roofline of one forecast: lines of the unit, peak and reached, and the operator classes."""
    line = entry["roofline"]
    if line is None or not line["points"]:
        return None
    ridge = line["peak_gflops"] / line["peak_bandwidth_gbs"]
    known = [point["flops_per_byte"] for point in line["points"] if point["flops_per_byte"] is not None]
    x = LogAxis.over([*known, ridge / 3, ridge * 3], _LEFT, WIDTH - _RIGHT)
    speeds = [point["gflops"] for point in line["points"]]
    y = LogAxis.over([*speeds, line["peak_gflops"]], HEIGHT - _BOTTOM, _TOP)
    labels = _dodge([y.place(point["gflops"]) for point in line["points"]])
    points = [_place_point(point, x, y, below) for point, below in zip(line["points"], labels, strict=True)]
    return {
        "title": name_forecast(entry),
        "points": points,
        "peak": _line(line["peak_gflops"], line["peak_bandwidth_gbs"], x, y),
        "reached": _line(line["reached_gflops"], line["reached_bandwidth_gbs"], x, y),
        "x_ticks": [{"at": x.place(tick), "label": f"{tick:g}"} for tick in x.ticks()],
        "y_ticks": [{"at": y.place(tick), "label": format_count(tick * 1e9)} for tick in y.ticks()],
        "summary": f"Roofline of {name_forecast(entry)}. " + "; ".join(str(point["words"]) for point in points),
        **_FRAME,
    }


def _place_point(point: RooflinePoint, x: LogAxis, y: LogAxis, label_y: float) -> Chart:
    # without traffic it lies beyond the right end
    at = x.end if point["flops_per_byte"] is None else x.place(point["flops_per_byte"])
    return {
        "x": at,
        "y": y.place(point["gflops"]),
        "name": point["name"],
        "words": f"{point['name']}: {_describe_intensity(point['flops_per_byte'])}, "
        f"{format_count(point['gflops'] * 1e9)}FLOPS, limited by {point['limited_by']}",
        "label_y": label_y,
        "anchor": "end" if at > WIDTH * 0.7 else "start",
    }


def draw_ranges(title: str, entries: Sequence[ForecastEntry], part: Part) -> Chart | None:
    """Ranges of time by device on one logarithmic axis: low to high, the likely value, the paper's floor."""
    known = [one for one in entries if one[part]["likely_ms"] is not None or one[part]["floor_ms"] is not None]
    values = [ms for one in known for name in _PLACED if (ms := one[part][name])]
    if not values:
        return None
    axis = LogAxis.over(values, 4, WIDTH - 4)
    rows = []
    for index, one in enumerate(known):
        times = one[part]
        row: Chart = {"label": name_forecast(one), "y": index * _ROW, "words": format_range(times)}
        low, likely, high = times["low_ms"], times["likely_ms"], times["high_ms"]
        if low is not None and likely is not None and high is not None:
            row |= {"low": axis.place(low), "likely": axis.place(likely), "high": axis.place(high)}
        if times["floor_ms"] is not None:
            row["floor"] = axis.place(times["floor_ms"])
        rows.append(row)
    summary = f"{title}: " + "; ".join(f"{row['label']} {row['words']}" for row in rows)
    ticks = [{"at": axis.place(tick), "label": format_ms(tick)} for tick in axis.ticks()]
    return {
        "title": title,
        "rows": rows,
        "ticks": ticks,
        "height": len(rows) * _ROW + 26,
        "summary": summary,
        "width": WIDTH,
    }


def _describe_intensity(flops_per_byte: float | None) -> str:
    return "no memory traffic" if flops_per_byte is None else f"{flops_per_byte:.3g} FLOPs a byte"


def _line(gflops: float, bandwidth_gbs: float, x: LogAxis, y: LogAxis) -> str:
    """A roof as an SVG path: the slope of the bandwidth, then the flat of the compute."""
    left, right, floor = 10**x.low, 10**x.high, 10**y.low
    start = max(left, floor / bandwidth_gbs)
    ridge = min(max(gflops / bandwidth_gbs, start), right)
    corners = [(start, start * bandwidth_gbs), (ridge, min(gflops, ridge * bandwidth_gbs)), (right, gflops)]
    return "M" + " L".join(f"{x.place(a)} {y.place(b)}" for a, b in corners)


def _dodge(places: Sequence[float]) -> list[float]:
    """Heights for labels beside points, moved so that none covers another."""
    moved: dict[int, float] = {}
    for index in sorted(range(len(places)), key=lambda i: places[i]):
        lowest = max(moved.values(), default=-math.inf)
        moved[index] = round(max(places[index] + 4, lowest + 14), 1)
    return [moved[index] for index in range(len(places))]
