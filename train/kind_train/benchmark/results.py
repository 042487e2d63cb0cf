"""What the folder of a suite shows: results.jsonl, results.md, pictures.png, curve.png and index.html."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kind_core.classes import ClassInfo
from kind_core.errors import ResultsError
from kind_core.files.litter import is_hidden
from kind_core.files.locking import waited_for
from kind_core.files.staging import PART, staged
from kind_core.pictures import make_class_grid
from kind_train.benchmark.page import render_page

_PICTURE_HEIGHT = 64
SUITE_NAME = "suite.json"  # which suite a folder is of, and on what it was run
PICTURES, CURVE = "pictures.png", "curve.png"
Strip = tuple[str, str, Sequence[np.ndarray]]  # name, title, pictures


def require_results_folder(output: Path) -> None:
    """Raise ResultsError where a folder holds something that is of no suite."""
    if (
        output.is_dir()
        and not (output / SUITE_NAME).exists()
        and any(not is_hidden(one.name) for one in output.iterdir())
    ):
        raise ResultsError(f"{output} holds other files than results of a suite", "choose an empty --output")


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table of a page and of Markdown; the first column names the rows."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """All that a folder shows: `lines` of results.jsonl, what is to be known of the figures, tables, pictures.

    `columns` are the classes of the pictures, of each of which a strip has as many.
    """

    title: str
    notes: Sequence[str]
    lines: Sequence[Mapping[str, object]]
    tables: Sequence[Table]
    strips: Sequence[Strip] = ()
    columns: Sequence[str] = ()
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    curve_of: str = ""


def write_results(output: Path, results: Results) -> None:
    """Write everything anew; each file is whole or as it was."""
    with waited_for(output / "results.md"):  # others may make cells of the folder at the same time
        _write_all(output, results)


def _write_all(output: Path, results: Results) -> None:
    texts = {
        "results.jsonl": "".join(json.dumps(line) + "\n" for line in results.lines),
        "results.md": to_markdown(results),
    }
    if results.strips:
        rows = [(ClassInfo(id=name, names=(title,)), pictures) for name, title, pictures in results.strips]
        with staged(output / PICTURES, PART, force=True) as temporary:
            make_class_grid(rows, _PICTURE_HEIGHT).save(temporary, format="PNG")
    if any(len(points) > 1 for points in results.curves.values()):
        from kind_train.benchmark.curve import draw_curves

        draw_curves(results.curves, results.curve_of, output / CURVE)
    shown = {name: (output / name).read_bytes() for name in (PICTURES, CURVE) if (output / name).exists()}
    texts["index.html"] = render_page(results.title, results.notes, results.tables, shown, _describe(results))
    for name, text in texts.items():
        with staged(output / name, PART, force=True) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _describe(results: Results) -> str:
    """What stands in the columns of the pictures."""
    each = len(results.strips[0][2]) // len(results.columns) if results.strips and results.columns else 0
    if not each:
        return ""
    return f" Columns: {f'{each} each of ' if each > 1 else ''}{', '.join(results.columns)}."


def to_markdown(results: Results) -> str:
    """The notes and tables."""
    lines = [f"# {results.title}", ""]
    for note in results.notes:
        lines += [note, ""]
    for table in results.tables:
        lines += [f"## {table.title}", ""] if table.title else []
        lines += [f"| {' | '.join(table.headings)} |", "|" + "---|" * len(table.headings)]
        lines += [f"| {' | '.join(map(_escape, row))} |" for row in table.rows]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|")
