"""A whole export as the command line runs it: progress on stderr, the summary on stdout."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TimeElapsedColumn
from rich.table import Table

from kind_core.console import count_of, echo
from kind_core.console.tables import PlainColumn, open_console, say
from kind_export.request import ExportRequest
from kind_export.source import check_request
from kind_export.stages import Stage

if TYPE_CHECKING:
    from kind_runtimes.documents.reports.document import ReportDocument
    from kind_runtimes.manifest import Manifest


def run_export(request: ExportRequest, *, as_json: bool) -> None:
    """Export and print the bundle's path and a summary table, or everything as JSON."""
    check_request(request)
    console = open_console(stderr=True)
    with _progress(console) as show:
        from kind_export.pipeline import export_bundle

        result = export_bundle(request, show)
    for note in result.notes:
        say(console, note, style="yellow")
    report = json.loads((result.path / "report.json").read_text(encoding="utf-8"))
    if as_json:
        echo(json.dumps({"bundle": str(result.path), "manifest": dict(result.manifest.data), "report": report}))
        return
    open_console().print(_summary(report))
    from kind_export.report.words import describe_load

    load = describe_load(report["host"])
    if load and any(target["measured"] for target in report["targets"].values()):
        echo(f"note    the host was under {load}: its times are no measure; kind-bench run measures again", err=True)
    if report["plan"] is not None:
        from kind_export.report.words import describe_plan

        words = describe_plan(report["plan"])
        echo(f"budget  {words['budget']} {words['chosen']}")
    for line in _describe_forecasts(report) if request.devices else ():
        echo(line)
    echo(f"bundle  {result.path}")
    for pack in result.manifest.packs:
        echo(f"pack    {result.path / pack.file}  {pack.size_bytes / 1e6:.2f} MB")
    for kit in request.kits:
        echo(f"kit     {result.path / kit / 'README.md'}")
    echo(f"report  {result.path / 'report.html'}")
    echo(f"next    open the report in a browser; {_next_command(result.path, result.manifest)}", err=True)


def run_captions(request: ExportRequest, file: Path | None) -> None:
    """Export a model of captions and print a line for each target."""
    from kind_core.checkpoint_config import read_text_config
    from kind_core.classes import resolve_classes
    from kind_core.files.staging import check_free
    from kind_runtimes.captions.caption import Caption

    config, text = read_text_config(request.checkpoint)
    resolve_classes(request.classes, config.classes)
    caption = None if file is None else Caption.read(file)
    if caption is not None:
        caption.inputs(text.tokens, text.channels)  # a slip is told before torch is loaded
    if request.output is not None:
        check_free(request.output, force=request.force)
    with _progress(open_console(stderr=True)) as show:
        from kind_export.caption_pipeline import export_captions

        result = export_captions(request, caption, show)
    for name, parity in result.parities.items():
        echo(f"{name}  {parity.trajectory_psnr_db:.0f} dB (gate {parity.threshold_db:g})")
    echo(f"bundle  {result.path}")


def _next_command(bundle: Path, manifest: Manifest) -> str:
    """What draws pictures with a new bundle; of one without a decoder, what says what it holds."""
    from kind_runtimes.engine_rows import ENGINES

    words = ["kind-run", str(bundle), "--scale", "8"]
    if not any("decode" in target.programs for target in manifest.targets.values()):
        return shlex.join(["kind-run", "inspect", str(bundle)])
    if manifest.packs or len(manifest.classes) > 1:
        words += ["--class", (manifest.packs[0].info if manifest.packs else manifest.classes[0]).name]
    if all(ENGINES[name].is_code for name in manifest.targets):
        words += ["--runtime", next(iter(manifest.targets))]
    return shlex.join(words)


def run_packs(request: ExportRequest, *, as_json: bool) -> None:
    """Write packs for an existing base and print a line for each, or everything as JSON."""
    check_request(request)
    console = open_console(stderr=True)
    with _progress(console) as show:
        from kind_export.later_packs import export_packs

        result = export_packs(request, show)
    for note in result.notes:
        say(console, note, style="yellow")
    packs = []
    for i, file in enumerate(result.files):
        size_bytes = file.stat().st_size
        psnr_db = {name: round(parity.class_psnr_db[i], 2) for name, parity in result.parities.items()}
        packs.append({"file": str(file), "size_bytes": size_bytes, "trajectory_psnr_db": psnr_db})
        if not as_json:
            measured = ", ".join(f"{name} {psnr:.0f} dB" for name, psnr in psnr_db.items())
            echo(f"pack  {file}  {size_bytes / 1e6:.2f} MB  {measured}")
    if as_json:
        echo(json.dumps({"packs": packs}))


def _describe_forecasts(report: ReportDocument) -> Iterator[str]:
    """A line for each device and unit; always called a forecast."""
    from kind_export.report.words import format_range, name_forecast

    for one in report["forecasts"]:
        times = f"a step {format_range(one['step'])}, a picture {format_range(one['picture'])}"
        reason = f"; {one['reason']}" if one["reason"] else ""
        yield f"forecast  {name_forecast(one)}: {times}{reason}".replace("\u00a0", " ")


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str], None]]:
    """A bar of the stages that come; where that is no terminal, a line a stage."""
    start = time.perf_counter()
    columns = (SpinnerColumn(), PlainColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)  # until the stages are known, which is known once all is loaded

        def show(stage: str) -> None:
            total = stage.total if isinstance(stage, Stage) else None
            bar.update(task, description=stage, completed=getattr(stage, "number", 1) - 1, total=total)
            if not console.is_terminal:
                say(console, f"[{time.perf_counter() - start:5.1f} s] {stage}")

        show("loading torch and the exporters")
        yield show


def _summary(report: ReportDocument) -> Table:
    from kind_export.report.words import describe_guidance, describe_load, picture_range_ms

    names = ", ".join(c["names"][0] for c in report["classes"])
    sampling = report["sampling"]
    steps = count_of(sampling["steps"], f"{sampling['sampler']} step")
    settings = f"{steps} {describe_guidance(sampling)}"
    table = Table(box=box.SIMPLE_HEAD, title=f"{names}: {settings}")
    for heading in ("target", "precision", "size", "vs eager", "gate", "step here", "image here"):
        table.add_column(heading, justify="left" if heading == "target" else "right")
    for name, target in report["targets"].items():
        measured = target["measured"]
        times = (measured["step_ms"], measured["image_ms"]) if measured else ()
        step, image = (f"{ms:.1f} ms" for ms in times) if times else ("needs a Mac",) * 2
        if measured and describe_load(report["host"]):  # the median is no fact
            ranges = (measured["step_min_ms"], measured["step_max_ms"]), picture_range_ms(measured, sampling["steps"])
            step, image = (f"{low:.{int(high < 10)}f} to {high:.{int(high < 10)}f} ms" for low, high in ranges)
        parity = target["parity"]
        decibels = (f"{db:.0f} dB" for db in (parity["trajectory_psnr_db"], parity["threshold_db"]))
        table.add_row(name, target["precision"], f"{target['size_bytes'] / 1e6:.2f} MB", *decibels, step, image)
    return table
