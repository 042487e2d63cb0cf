"""What the folder of a suite shows: results.jsonl, results.md, pictures.png, curve.png and index.html.

The page is one HTML file, without scripts and without anything to load.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from kind_core.classes import ClassInfo
from kind_core.errors import ConfigError, ResultsError
from kind_core.files.json_files import read_object
from kind_core.files.litter import is_hidden
from kind_core.files.locking import waited_for
from kind_core.files.staging import PART, staged, write_whole
from kind_core.pictures import make_class_grid
from kind_train.benchmark.options import BenchmarkOptions
from kind_train.benchmark.suite import Arm, Row
from kind_train.evaluate.against import Measured
from kind_train.seen_files import find_change

_PICTURE_HEIGHT = 64
SUITE_NAME = "suite.json"  # which suite a folder is of, and on what it was run
PICTURES, CURVE = "pictures.png", "curve.png"
Strip = tuple[str, str, Sequence[np.ndarray]]  # name, title, pictures
_WITH_BRACKETS = re.compile(r"(\S+) \((.+)\)")
_M = TypeVar("_M", Row, Arm)


def require_results_folder(output: Path) -> None:
    """Raise ResultsError where a folder holds something that is of no suite."""
    if (
        output.is_dir()
        and not (output / SUITE_NAME).exists()
        and any(not is_hidden(one.name) for one in output.iterdir())
    ):
        raise ResultsError(f"{output} holds other files than results of a suite", "choose an empty --output")


def open_folder(output: Path, identity: Mapping[str, object], *, resume: bool) -> None:
    """Begin or continue the folder of a suite; raises ResultsError where it holds another one's results."""
    file = output / SUITE_NAME
    require_results_folder(output)
    if not file.exists():
        output.mkdir(parents=True, exist_ok=True)
        with waited_for(file):
            if not file.exists():
                write_whole(file, json.dumps(identity, indent=2) + "\n")
                return
    then = read_object(file, ResultsError, "choose another --output")
    if (change := find_change(then, identity)) is not None:
        raise ResultsError(f"{output} holds results of {change}", "choose another --output")
    if not resume:
        raise ConfigError(f"{output} already holds results of this suite", "continue it with --resume")


def leave_out(
    methods: Sequence[_M], need: Callable[[_M], str | None], options: BenchmarkOptions, tell: Callable[[str], None]
) -> list[_M]:
    """Those whose option, which `need` names, was given; the others are told. Raises ConfigError where none is left."""
    missing = {}
    for one in methods:
        option = need(one)
        if option is not None and getattr(options, option.removeprefix("--").replace("-", "_")) is None:
            missing[one.name] = option
    if len(missing) == len(methods):
        name, option = next(iter(missing.items()))
        raise ConfigError(f"method {name!r} needs {option}", "add it, or choose others with --methods")
    for one in methods:
        if one.name in missing:
            tell(f"{one.title}: left out, it needs {missing[one.name]}")
    return [one for one in methods if one.name not in missing]


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
        if results.strips:
            rows = [(ClassInfo(id=name, names=(title,)), pictures) for name, title, pictures in results.strips]
            with staged(output / PICTURES, PART, force=True) as temporary:
                make_class_grid(rows, _PICTURE_HEIGHT).save(temporary, format="PNG")
        if any(len(points) > 1 for points in results.curves.values()):
            from kind_train.plots import draw_curves

            draw_curves(results.curves, results.curve_of, output / CURVE)
        texts = {
            "results.jsonl": "".join(json.dumps(line) + "\n" for line in results.lines),
            "results.md": to_markdown(results),
            "index.html": _render_page(results, output),
        }
        for name, text in texts.items():
            write_whole(output / name, text)


def _render_page(results: Results, output: Path) -> str:
    """The page, with the pictures that lie in `output`; texts are escaped."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader("kind_train"), PackageLoader("kind_core")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["parted"] = _part
    captions = {
        PICTURES: f"One row a method, the same start noise in every row.{_describe_columns(results)}",
        CURVE: "Over the training images seen.",
    }
    pictures = [
        {"source": f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}", "caption": caption,
         "name": name}
        for name, caption in captions.items()
        if (file := output / name).exists()
    ]  # fmt: skip
    page = environment.get_template("results.html")
    return page.render(title=results.title, notes=results.notes, tables=results.tables, pictures=pictures)


def _part(cell: str) -> tuple[str, str]:
    """A figure and what stands behind it in brackets, its interval or the paper's order."""
    found = _WITH_BRACKETS.fullmatch(cell)
    return (cell, "") if found is None else (found[1], found[2])


def _describe_columns(results: Results) -> str:
    """What stands in the columns of the pictures."""
    each = len(results.strips[0][2]) // len(results.columns) if results.strips and results.columns else 0
    if not each:
        return ""
    return f" Columns: {f'{each} each of ' if each > 1 else ''}{', '.join(results.columns)}."


def name_seeds(seeds: Sequence[int]) -> str:
    """`seed 0`, `seeds 0, 1`."""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def show_figure(figure: Measured | None, digits: str) -> str:
    """A figure with its interval, each in these digits; nothing where there is none."""
    if figure is None:
        return ""
    value, low, high = (format(one, digits) for one in (figure.value, figure.low, figure.high))
    return f"{value} ({low} to {high})"


def to_markdown(results: Results) -> str:
    """The notes and tables."""
    lines = [f"# {results.title}", ""]
    for note in results.notes:
        lines += [note, ""]
    for table in results.tables:
        lines += [f"## {table.title}", ""] if table.title else []
        lines += [f"| {' | '.join(table.headings)} |", "|" + "---|" * len(table.headings)]
        for row in table.rows:
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
