"""A whole export as the command line runs it: progress on stderr, the summary on stdout."""

from __future__ import annotations

import json
import time
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from kind_export.request import ExportRequest, parse_targets


def run_export(request: ExportRequest, *, as_json: bool) -> None:
    """Export and print the bundle's path and a summary table, or everything as JSON."""
    console = Console(stderr=True)
    start = time.perf_counter()
    num_stages = 6 + 3 * len(parse_targets(request.targets))
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("loading torch", total=num_stages)

        def show(stage: str) -> None:
            bar.update(task, description=stage, advance=1)
            if not console.is_terminal:
                console.print(f"[{time.perf_counter() - start:5.1f} s] {stage}", markup=False, highlight=False)

        from kind_export.pipeline import export_bundle

        result = export_bundle(request, show)
    for note in result.notes:
        console.print(note, style="yellow")
    report = json.loads((result.path / "report.json").read_text(encoding="utf-8"))
    if as_json:
        click.echo(json.dumps({"bundle": str(result.path), "manifest": dict(result.manifest.data), "report": report}))
        return
    Console().print(_summary(report))
    click.echo(f"bundle  {result.path}")
    click.echo(f"report  {result.path / 'report.html'}")


def _summary(report: dict[str, Any]) -> Table:
    names = ", ".join(c["names"][0] for c in report["classes"])
    sampling = report["sampling"]
    settings = f"{sampling['steps']} {sampling['sampler']} steps at guidance {sampling['guidance_scale']:g}"
    table = Table(box=box.SIMPLE_HEAD, title=f"{names}: {settings}")
    for heading in ("target", "precision", "size", "vs eager", "gate", "step here", "image here"):
        table.add_column(heading, justify="left" if heading == "target" else "right")
    for name, target in report["targets"].items():
        measured = target["measured"]
        step, image = (f"{measured[key]:.1f} ms" if measured else "needs a Mac" for key in ("step_ms", "image_ms"))
        parity, gate = (f"{target['parity'][key]:.0f} dB" for key in ("trajectory_psnr_db", "threshold_db"))
        table.add_row(name, target["precision"], f"{target['size_bytes'] / 1e6:.2f} MB", parity, gate, step, image)
    return table
