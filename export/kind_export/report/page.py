"""The page of a report: one self-contained HTML file from report.json's data and the preview picture.

Words and layout are in `templates/`, numbers as words in `words`; here the data is put into the page's order.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Literal

from kind_bench.results.alternatives import list_alternatives
from kind_core.config import TrainingRecord
from kind_core.console import count_of
from kind_export.report.charts import Chart, Part, draw_bars, draw_columns, draw_ranges, draw_roofline
from kind_export.report.usage import read_snippet, write_command, write_loop
from kind_export.report.words import (
    compare_share,
    describe_guidance,
    describe_limits,
    describe_load,
    describe_plan,
    describe_times,
    describe_training,
    explain_form,
    format_bytes,
    format_count,
    format_db,
    format_ms,
    format_percent,
    format_range,
    join_words,
    warn_of_training,
)
from kind_runtimes.documents.reports.document import ForecastEntry, ReportDocument
from kind_runtimes.documents.reports.model import SumEntry
from kind_runtimes.documents.reports.targets import ReportProgram
from kind_runtimes.engine_rows import ENGINES

_PREVIEW_WIDTH = 640
PREVIEW_CLASSES = 8  # of which the preview shows a row each
_MAX_TITLE_NAMES = 3
_BY_CLASS: tuple[Literal["flops", "bytes_moved"], ...] = ("flops", "bytes_moved")
_RANGES: tuple[tuple[str, Part], ...] = (("One step", "step"), ("One picture", "picture"))


def render_page(report: ReportDocument, preview: bytes | None, kits: Sequence[str] = ()) -> str:
    """One page without scripts and without anything to load; `preview` is a PNG file, `kits` lie in the bundle."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader("kind_export"), PackageLoader("kind_core")]),  # the latter has page.css
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bytes": format_bytes,
        "count": format_count,
        "count_of": count_of,
        "ms": format_ms,
        "db": format_db,
        "percent": format_percent,
        "describe_guidance": describe_guidance,
        "describe_times": describe_times,
        "range": format_range,
    }
    training = _read_training(report)
    shown = {**report, "forecasts": [{**one, "limits": describe_limits(one)} for one in report["forecasts"]]}
    return environment.get_template("report.html").render(
        report=shown,
        names=[info["names"][0] for info in report["classes"]],
        title=_title(report),
        runtimes=join_words([ENGINES[name].title for name in report["targets"]]),
        preview=None if preview is None else _describe_preview(report, preview),
        headlines=_headlines(report),
        training="" if training is None else describe_training(training),
        training_warning=warn_of_training(training),
        charts=_charts(report),
        work_charts=_work_charts(report),
        range_charts=_range_charts(report),
        load=describe_load(report["host"]),
        no_forecast=_name_unknown(report),
        snippets=[read_snippet(kit, report) for kit in kits],
        rooflines=[chart for one in report["forecasts"] if (chart := draw_roofline(one)) is not None],
        forecast_notes=list(dict.fromkeys(note for one in report["forecasts"] for note in one["notes"])),
        plan_words=describe_plan(report["plan"]) if report["plan"] else None,
        engines=ENGINES,
        alternatives=list_alternatives(),
        draws=_draws(report),
        image_titles=[ENGINES[name].title for name, one in report["targets"].items() if _draws_images(one["programs"])],
        programs=next(iter(report["targets"].values()))["programs"],
        forms={name: explain_form(m) for name, m in report["model"]["matrices_of_a_block"].items()},
        loop_text=write_loop(report),  # `loop` is Jinja's own
        command=write_command(report),
    )


def _read_training(report: ReportDocument) -> TrainingRecord | None:
    training = report["source"].get("training")
    return None if training is None else TrainingRecord(**training)


def _draws(report: ReportDocument) -> str:
    """`64 x 64 of 3 classes`: what the pictures are."""
    programs = next(iter(report["targets"].values()))["programs"]
    height, width = programs["decode"]["outputs"][0]["shape"][-2:] if "decode" in programs else (0, 0)
    count = len(report["packs"] or report["classes"])
    size = f"{width} x {height}" if height and width else "latents"
    return f"{size} of {count} {'class' if count == 1 else 'classes'}"


def _draws_images(programs: Mapping[str, ReportProgram]) -> bool:
    """Whether `decode` gives a picture type in place of floats."""
    outputs = programs["decode"]["outputs"] if "decode" in programs else ()
    return any(one["dtype"] == "image_rgb_uint8" for one in outputs)


def _title(report: ReportDocument) -> str:
    names = [info["names"][0] for info in report["classes"]]
    if len(names) > _MAX_TITLE_NAMES:
        names = [*names[: _MAX_TITLE_NAMES - 1], f"{len(names) - _MAX_TITLE_NAMES + 1} more classes"]
    return join_words(names)


def _describe_preview(report: ReportDocument, png: bytes) -> dict[str, object]:
    """Source, size and words of the preview; a PNG file says its width in bytes 16 to 20."""
    width = int.from_bytes(png[16:20])
    shown = [info["names"][0] for info in report["classes"][:PREVIEW_CLASSES]]
    makers = [target["parity"]["verified_by"] for target in report["targets"].values()]
    return {
        "source": f"data:image/png;base64,{base64.b64encode(png).decode()}",
        "width": min(width, _PREVIEW_WIDTH),
        "rows": join_words(shown) if len(shown) == 1 else f"one row a class, from the top: {join_words(shown)}",
        "maker": f"the exported program, run by {makers[0]}" if len(makers) == 1 else "the exported programs",
    }


def _headlines(report: ReportDocument) -> list[dict[str, str]]:
    """Four figures: a label, a value and what to know about it."""
    targets, parameters = report["targets"], report["model"]["parameters"]
    smallest = min(targets, key=lambda name: targets[name]["size_bytes"])
    parities = {name: target["parity"] for name, target in targets.items()}
    closest = min(parities, key=lambda name: parities[name]["trajectory_psnr_db"] - parities[name]["threshold_db"])
    parity = parities[closest]
    others = "" if len(targets) == 1 else ", the smallest"
    return [
        {
            "label": "To ship",
            "value": format_bytes(targets[smallest]["size_bytes"]),
            "note": f"{ENGINES[smallest].title}, {targets[smallest]['precision']}{others}",
        },
        {
            "label": "Parameters",
            "value": format_count(parameters["stored_in_step"]),
            "note": f"{compare_share(parameters['stored_in_step'], parameters['dense_twin'])} than its dense twin "
            f"({format_count(parameters['dense_twin'])})",
        },
        _headline_step(report),
        {
            "label": "Closeness to the original",
            "value": format_db(parity["trajectory_psnr_db"]),
            "note": f"{ENGINES[closest].title}; {format_db(parity['threshold_db'])} needed"
            + ("" if len(targets) == 1 else ", the narrowest pass"),
        },
    ]


def _headline_step(report: ReportDocument) -> dict[str, str]:
    measured = {name: t["measured"] for name, t in report["targets"].items() if t["measured"]}
    if not measured:
        note = "not measured: Core ML runs on Apple hardware"
        return {"label": "One step here", "value": "needs a Mac", "note": note}
    fastest = min(measured, key=lambda name: measured[name]["step_ms"])
    others = "" if len(measured) == 1 else ", the fastest"
    note = f"{ENGINES[fastest].title} on this host{others}; phones are below"
    load, times = describe_load(report["host"]), measured[fastest]
    if load:  # the median is no fact
        value, _ = describe_times(times, report["sampling"]["steps"], is_busy=True)
        return {"label": "One step here, busy", "value": value, "note": f"{note}. The host was under {load}"}
    return {"label": "One step here", "value": format_ms(times["step_ms"]), "note": note}


def _charts(report: ReportDocument) -> list[Chart]:
    model, passes = report["model"], report["sampling"]["passes_per_step"]
    parameters, flops = model["parameters"], model["flops_per_pass"]["full"]
    return [
        draw_bars(
            "Parameters",
            {
                "Dense twin": parameters["dense_twin"],
                "Composed": parameters["composed"],
                "Exported": parameters["stored_in_step"],
            },
            "numbers",
            subject="Exported",
        ),
        draw_bars(
            "FLOPs of one guided step, full count",
            {
                "Dense twin": flops["dense_twin"] * passes,
                "Composed": flops["composed"] * passes,
                "Exported": model["flops_per_step_executed"],
            },
            "FLOPs",
            subject="Exported",
        ),
    ]


def _work_charts(report: ReportDocument) -> list[Chart]:
    """Of each target's step: FLOPs and bytes by class of operator, and by layer where the file names them."""
    charts: list[Chart] = []
    for target, programs in report["work"].items():
        work = programs["step"]
        sums = (_sums(work["by_class"], key) for key in _BY_CLASS)
        flops, moved = (dict(sorted(one.items(), key=lambda item: -item[1])) for one in sums)
        bars = [
            draw_bars("FLOPs by kind of operator", flops, "FLOPs"),
            draw_bars("Bytes by kind of operator", moved, "bytes"),
        ]
        columns = [
            draw_columns("FLOPs by layer", _sums(work["by_layer"], "flops"), "FLOPs"),
            draw_columns("Weights by layer", _sums(work["by_layer"], "weight_bytes"), "bytes"),
        ]
        title = f"{ENGINES[target].title}: one step"
        charts.append({"title": title, "bars": bars, "columns": columns if work["by_layer"] else []})
    return charts


def _sums(groups: Sequence[SumEntry], key: Literal["flops", "bytes_moved", "weight_bytes"]) -> dict[str, float]:
    return {group["name"]: group[key] for group in groups if group[key]}


def _range_charts(report: ReportDocument) -> list[Chart]:
    """A row a device, of the unit and program that is likely to be the fastest."""
    best: dict[str, ForecastEntry] = {}
    for one in report["forecasts"]:
        kept = best.setdefault(one["device_name"], one)
        if _likely_ms(one) < _likely_ms(kept):
            best[one["device_name"]] = one
    drawn = (draw_ranges(title, [*best.values()], part) for title, part in _RANGES)
    return [chart for chart in drawn if chart is not None]


def _likely_ms(forecast: ForecastEntry) -> float:
    likely = forecast["step"]["likely_ms"]
    return math.inf if likely is None else float(likely)


def _name_unknown(report: ReportDocument) -> str:
    """The units for which nothing is known, with why, in place of rows that say so; empty where there are none."""
    unknown = [one for one in report["forecasts"] if one["step"]["likely_ms"] is one["step"]["floor_ms"] is None]
    named = (
        f"{one['device_name']}, {one['unit'].upper()}{f' ({why})' if (why := one['reason']) else ''}" for one in unknown
    )
    return "; ".join(dict.fromkeys(named))
