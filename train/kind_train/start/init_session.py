"""`kind-train init` as the command line runs it: progress on stderr, a table or JSON on stdout."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich import box
from rich.table import Table

from kind_core.console import echo
from kind_core.console.tables import open_console
from kind_train.display import show_progress
from kind_train.start.from_dit import InitRequest, InitResult, init_from_dit
from kind_train.start.from_pixart import init_from_pixart


def run_init(request: InitRequest, *, as_json: bool) -> None:
    """Write the checkpoint and print what its factors lose."""
    with show_progress(open_console(stderr=True), "decomposing") as update:
        start = init_from_pixart if request.is_pixart else init_from_dit
        result = start(request, lambda done, total: update(done, total, "matrices"))
    if as_json:
        errors = [asdict(error) for error in result.errors]
        echo(json.dumps({"checkpoint": str(request.output), "size_bytes": result.size_bytes, "errors": errors}))
        return
    open_console().print(_table(result))
    echo(f"checkpoint  {request.output}  {result.size_bytes / 1e6:.2f} MB")


def _table(result: InitResult) -> Table:
    config = result.config
    title = f"Error of N_G {config.learngene_rank}, N_T {config.tailor_rank}, of the norm of each matrix"
    table = Table(box=box.SIMPLE_HEAD, title=title)
    for heading in ("matrix", "learngene alone", "with the first tailor", "with the last"):
        table.add_column(heading, justify="left" if heading == "matrix" else "right")
    for one in result.errors:
        table.add_row(one.name, *(f"{value:.2%}" for value in (one.learngene, one.first_class, one.last_class)))
    return table
