"""The page of a report: one self-contained HTML file from report.json's data and the preview picture.

Words and layout are in `templates/`, numbers as words in `words`; here the data is put into the page's order.
"""

from __future__ import annotations

import base64
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from kind_bench.results.alternatives import list_alternatives
from kind_core.config import TrainingRecord
from kind_export.report.charts import draw_bars, draw_columns, draw_ranges, draw_roofline
from kind_export.report.plan_words import describe_plan
from kind_export.report.words import (
    compare_share,
    describe_guidance,
    describe_limits,
    describe_load,
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
from kind_runtimes.engine_rows import ENGINES
from kind_runtimes.kits import kit_folder

Report = Mapping[str, Any]
_PREVIEW_WIDTH = 640
PREVIEW_CLASSES = 8  # of which the preview shows a row each
_MAX_TITLE_NAMES = 3
_RANGES = (("One step", "step"), ("One picture", "picture"))


def render_page(report: Report, preview: bytes | None, kits: Sequence[str] = ()) -> str:
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
        "ms": format_ms,
        "db": format_db,
        "percent": format_percent,
        "describe_guidance": describe_guidance,
        "range": format_range,
    }
    training = _read_training(report)
    report = {**report, "forecasts": [{**one, "limits": describe_limits(one)} for one in report["forecasts"]]}
    return environment.get_template("report.html").render(
        report=report,
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
        contents=_contents(report),
        snippets=[_read_snippet(kit) for kit in kits],
        rooflines=[chart for one in report["forecasts"] if (chart := draw_roofline(one)) is not None],
        forecast_notes=list(dict.fromkeys(note for one in report["forecasts"] for note in one["notes"])),
        plan_words=describe_plan(report["plan"]) if report["plan"] else None,
        engines=ENGINES,
        alternatives=list_alternatives(),
        draws=_draws(report),
        image_titles=[ENGINES[name].title for name, one in report["targets"].items() if _draws_images(one["programs"])],
        programs=next(iter(report["targets"].values()))["programs"],
        forms={name: explain_form(m) for name, m in report["model"]["matrices_of_a_block"].items()},
        loop_text=_loop(report),  # `loop` is Jinja's own
        command=_command(report),
    )


def _read_training(report: Report) -> TrainingRecord | None:
    training = report["source"].get("training")
    return None if training is None else TrainingRecord(**training)


def _draws(report: Report) -> str:
    """`64 x 64 of 3 classes`: what the pictures are."""
    programs = next(iter(report["targets"].values()))["programs"]
    height, width = programs["decode"]["outputs"][0]["shape"][-2:] if "decode" in programs else (0, 0)
    count = len(report["packs"] or report["classes"])
    size = f"{width} x {height}" if height and width else "latents"
    return f"{size} of {count} {'class' if count == 1 else 'classes'}"


def _draws_images(programs: Mapping[str, Any]) -> bool:
    """Whether `decode` gives a picture type in place of floats."""
    outputs = programs.get("decode", {}).get("outputs", ())
    return any(one["dtype"] == "image_rgb_uint8" for one in outputs)


def _title(report: Report) -> str:
    names = [info["names"][0] for info in report["classes"]]
    if len(names) > _MAX_TITLE_NAMES:
        names = [*names[: _MAX_TITLE_NAMES - 1], f"{len(names) - _MAX_TITLE_NAMES + 1} more classes"]
    return join_words(names)


def _describe_preview(report: Report, png: bytes) -> dict[str, Any]:
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


def _headlines(report: Report) -> list[dict[str, str]]:
    """Four figures: a label, a value and what to know about it."""
    targets, parameters = report["targets"], report["model"]["parameters"]
    smallest = min(targets, key=lambda name: targets[name]["size_bytes"])
    closest = min(targets, key=lambda name: _margin_db(targets[name]))
    parity = targets[closest]["parity"]
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


def _headline_step(report: Report) -> dict[str, str]:
    measured = {name: t["measured"] for name, t in report["targets"].items() if t["measured"]}
    if not measured:
        note = "not measured: Core ML runs on Apple hardware"
        return {"label": "One step here", "value": "needs a Mac", "note": note}
    fastest = min(measured, key=lambda name: measured[name]["step_ms"])
    others = "" if len(measured) == 1 else ", the fastest"
    note = f"{ENGINES[fastest].title} on this host{others}; phones are below"
    load, times = describe_load(report["host"]), measured[fastest]
    if load:  # the median is no fact
        value = f"{format_ms(times['step_min_ms'])} to {format_ms(times['step_max_ms'])}"
        return {"label": "One step here, busy", "value": value, "note": f"{note}. The host was under {load}"}
    return {"label": "One step here", "value": format_ms(times["step_ms"]), "note": note}


def _margin_db(target: Mapping[str, Any]) -> float:
    return float(target["parity"]["trajectory_psnr_db"] - target["parity"]["threshold_db"])


def _charts(report: Report) -> list[dict[str, Any]]:
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


def _work_charts(report: Report) -> list[dict[str, Any]]:
    """Of each target's step: FLOPs and bytes by class of operator, and by layer where the file names them."""
    charts = []
    for target, programs in report["work"].items():
        work = programs["step"]
        flops, moved = (_largest_first(_sums(work["by_class"], key)) for key in ("flops", "bytes_moved"))
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


def _sums(groups: Sequence[Mapping[str, Any]], key: str) -> dict[str, float]:
    return {group["name"]: group[key] for group in groups if group[key]}


def _largest_first(values: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(values.items(), key=lambda item: -item[1]))


def _range_charts(report: Report) -> list[dict[str, Any]]:
    """A row a device, of the unit and program that is likely to be the fastest."""
    best: dict[str, dict[str, Any]] = {}
    for one in report["forecasts"]:
        kept = best.setdefault(one["device_name"], one)
        if _likely_ms(one) < _likely_ms(kept):
            best[one["device_name"]] = one
    drawn = (draw_ranges(title, [*best.values()], part) for title, part in _RANGES)
    return [chart for chart in drawn if chart is not None]


def _likely_ms(forecast: Mapping[str, Any]) -> float:
    likely = forecast["step"]["likely_ms"]
    return math.inf if likely is None else float(likely)


def _name_unknown(report: Report) -> str:
    """The units for which nothing is known, with why, in place of rows that say so; empty where there are none."""
    unknown = [one for one in report["forecasts"] if one["step"]["likely_ms"] is one["step"]["floor_ms"] is None]
    named = (
        f"{one['device_name']}, {one['unit'].upper()}{f' ({why})' if (why := one['reason']) else ''}" for one in unknown
    )
    return "; ".join(dict.fromkeys(named))


def _contents(report: Report) -> list[tuple[str, str]]:
    """The sections by their anchors, in order."""
    where = [("where", "Where the work is")] if report["work"] else []
    return [
        ("programs", "The programs"),
        ("use", "Use it in your app"),
        ("work", "Parameters and FLOPs"),
        *where,
        ("devices", "On devices"),
        ("choices", "What was chosen"),
        ("reproduce", "Reproduce it"),
    ]


def _read_snippet(kit: str) -> dict[str, str]:
    """The code of a kit's README that draws a picture, and where the rest stands."""
    text = (kit_folder(kit) / "README.md").read_text(encoding="utf-8").partition("## Use it")[2]
    language, _, code = text.partition("```")[2].partition("```")[0].partition("\n")
    title = {"swift": "In Swift, with the iOS kit", "kotlin": "In Kotlin, with the Android kit"}[language]
    return {"title": title, "code": code.rstrip(), "readme": f"{kit}/README.md"}


def _loop(report: Report) -> str:
    """The loop of an app, with the names of this bundle's inputs and outputs; lines short enough for a phone."""
    programs, sampling = next(iter(report["targets"].values()))["programs"], report["sampling"]
    step, decode = programs["step"], programs.get("decode")
    scale = "" if sampling["initial_noise_scale"] == 1 else f" * {sampling['initial_noise_scale']:g}"
    state = [spec["name"] for spec in step["inputs"] if spec["name"] in ("latents", "history")]
    lines = [f"shape = {tuple(report['latents_shape'])}", f"latents = start_noise(seed, shape){scale}"]
    lines += ["history = zeros(shape)"] if "history" in state else []
    lines += [f"for i in range({sampling['steps']}):", "    out = step("]
    lines += [f"        {name}={name}," for name in state]
    lines += ["        step_index=i,"]
    lines += [f"        guidance={sampling['guidance_scale']:g},"] if sampling.get("distillation") is None else []
    others = [s["name"] for s in step["inputs"] if s["name"] not in (*state, "step_index", "guidance")]
    chosen = [f"{name}={'0' if name == 'class_index' else f'pack.{name}'}" for name in others]
    lines += [*(f"        {one}," for one in chosen), "    )"]
    lines += [f'    {name} = out["next_{name}"]' for name in state]
    if decode is not None:
        lines.append(f'image = decode(latents)["{decode["outputs"][0]["name"]}"]')
    return "\n".join(lines)


def _guidance_option(sampling: Mapping[str, Any]) -> dict[str, str]:
    if sampling.get("distillation") is not None:
        return {}
    return {"--guidance": f"{sampling['guidance_scale']:g}"}


def _command(report: Report) -> str:
    sampling, targets, bundle = report["sampling"], report["targets"], f"{report['name']}.kind"
    precisions = {target["precision"] for target in targets.values()}
    plain = [info["id"] for info in report["classes"] if "blend_of" not in info]
    blends = ["+".join(info["blend_of"]) for info in report["classes"] if "blend_of" in info]
    options = {
        "--checkpoint": "CHECKPOINT",
        **({"--classes": ",".join(plain)} if plain else {}),
        "--target": ",".join(targets),
        "--sampler": sampling["sampler"],
        "--steps": str(sampling["steps"]),
        **_guidance_option(sampling),
        "--baking": "on" if report["rewrites"]["conditioning"] == "modulation table" else "off",
    }
    if len(precisions) == 1:  # where they differ, they are the targets' defaults
        options["--precision"] = precisions.pop()
    steps = (target["lowering"].get("step", {}) for target in targets.values())
    min_ios = next((step["min_ios"] for step in steps if "min_ios" in step), None)
    if min_ios is not None:
        options["--min-ios"] = str(min_ios)
    if len(sampling["guided_steps"]) < sampling["steps"]:
        options["--guidance-interval"] = ",".join(f"{share:g}" for share in sampling["guidance_interval"])
    options |= {
        f"--{name.replace('_', '-')}": f"{value:g}" for name, value in report["rewrites"].get("cut", {}).items()
    }
    options["--output"] = bundle
    words = [f"{option} {shlex.quote(value)}" for option, value in options.items()]
    words += [f"--blend {shlex.quote(blend)}" for blend in blends] + (["--packs"] if report["packs"] else [])
    return " \\\n  ".join(["kind-export", *words])
