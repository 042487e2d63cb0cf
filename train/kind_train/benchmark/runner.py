"""Runs the cells of a suite that are not there yet, and writes its tables and pictures from those that are.

A cell is a row of the suite: `kind-train benchmark SUITE --methods ROW --output DIR --resume` makes it alone, so that
any queue can run many beside each other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from kind_core.checkpoint import hash_checkpoint, read_config
from kind_core.classes import ClassInfo
from kind_core.errors import ConfigError, ResultsError
from kind_core.files.json_files import read_object
from kind_core.files.locking import waited_for
from kind_core.files.staging import PART, staged
from kind_train.benchmark.class_agnostic import Request, run_row
from kind_train.benchmark.results import SUITE_NAME, Results, Strip, Table, require_results_folder, write_results
from kind_train.benchmark.stored import RowFigures
from kind_train.benchmark.suite import Arm, Row, Suite
from kind_train.evaluate.against import FigureEntry
from kind_train.evaluate.judges import InceptionJudge, Judge, open_judge
from kind_train.evaluate.networks import NONE
from kind_train.seen_files import find_change, opened_arrays, write_arrays

_M = TypeVar("_M", Row, Arm)
_NEEDS = {"photos": "--data", "dense": "--dense"}  # of what a row is drawn from
_CELLS = "cells"
_COLUMNS: tuple[Literal["entropy", "variance", "kurtosis"], ...] = ("entropy", "variance", "kurtosis")
_SHARES: tuple[Literal["called_as_asked", "called_as_tailor"], ...] = ("called_as_asked", "called_as_tailor")
_DIGITS = {"entropy": ".3f", "variance": ".3e", "kurtosis": ".1f", "called_as_asked": ".0%", "called_as_tailor": ".0%"}


def run_suite(
    suite: Suite,
    request: Request,
    rows: Sequence[Row],
    output: Path,
    *,
    scale: str,
    classifier: Path | None = None,
    inception_weights: str | None = None,
    resume: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> list[RowFigures]:
    """Every result that the folder then holds, in the order of the suite; Inception judges where it is given."""
    given = {"--data": request.data, "--dense": request.dense}
    kept = leave_out(rows, lambda row: _NEEDS.get(row.source), given, tell)
    read_config(request.checkpoint)
    judge: Judge = (
        open_judge(classifier, request.device)
        if inception_weights in (None, NONE)
        else InceptionJudge(Path(str(inception_weights)), device=request.device)
    )
    open_folder(output, _identity(suite, request, scale, judge.sha256), resume=resume)
    for row in kept:
        cell = output / _CELLS / f"{row.name}.npz"
        if not cell.exists():
            tell(f"{row.title} ...")
            figures, pictures, logits = run_row(row, request, judge, tell)
            about = {"method": row.name, "title": row.title, **figures}
            write_arrays(cell, about, {"pictures": pictures, "logits": logits})
    return write_rows(suite, output, read_config(request.checkpoint).classes)


def leave_out(
    methods: Sequence[_M], need: Callable[[_M], str | None], given: Mapping[str, object], tell: Callable[[str], None]
) -> list[_M]:
    """Those whose option, which `need` names, is among the given ones; the others are told.

    Raises ConfigError where none is left.
    """
    missing = {one.name: option for one in methods if (option := need(one)) is not None and given[option] is None}
    if len(missing) == len(methods):
        name, option = next(iter(missing.items()))
        raise ConfigError(f"method {name!r} needs {option}", "add it, or choose others with --methods")
    for one in methods:
        if one.name in missing:
            tell(f"{one.title}: left out, it needs {missing[one.name]}")
    return [one for one in methods if one.name not in missing]


def open_folder(output: Path, identity: Mapping[str, object], *, resume: bool) -> None:
    """Begin or continue the folder of a suite; raises ResultsError where it holds another one's results."""
    file = output / SUITE_NAME
    require_results_folder(output)
    if not file.exists():
        output.mkdir(parents=True, exist_ok=True)
        with waited_for(file):
            if not file.exists():
                with staged(file, PART, force=True) as temporary:
                    temporary.write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")
                return
    _require_same(file, identity)
    if not resume:
        raise ConfigError(f"{output} already holds results of this suite", "continue it with --resume")


def _require_same(file: Path, identity: Mapping[str, object]) -> None:
    then = read_object(file, ResultsError, "choose another --output")
    if (change := find_change(then, identity)) is not None:
        raise ResultsError(f"{file.parent} holds results of {change}", "choose another --output")


def write_rows(suite: Suite, output: Path, classes: Sequence[ClassInfo]) -> list[RowFigures]:
    """All files that the folder shows, of the cells that are there; returns their figures."""
    results: list[RowFigures] = []
    strips: list[Strip] = []
    for row in suite.rows:
        cell = output / _CELLS / f"{row.name}.npz"
        if not cell.exists():
            continue
        with opened_arrays(cell) as (figures, arrays):
            results.append(figures)
            strips.append((row.name, row.title, list(arrays["pictures"])))
    judges = ", ".join(sorted({result["judge"] for result in results}))
    notes = [
        f"Judged by {judges}; {len(classes)} classes; means over the pictures with 95 % intervals, the same start "
        "noise in every row."
    ]
    if suite.paper:
        notes.append("The paper's figures are of Inception's logits on ImageNet and compare by order alone.")
    write_results(
        output,
        Results(
            title=suite.title,
            notes=notes,
            lines=results,
            tables=[make_table(suite, results)],
            strips=strips,
            columns=[info.name for info in classes],
        ),
    )
    return results


def make_table(suite: Suite, results: Sequence[RowFigures]) -> Table:
    """Our figures with 95 % intervals, and the paper's beside them."""
    headings: tuple[str, ...] = ("row", "n", "called as the label's class", "as the tailor's", *_COLUMNS)
    rows = []
    for result in results:
        paper = suite.paper.get(result["method"])
        cells = [_show(result.get(name), name) for name in (*_SHARES, *_COLUMNS)]
        if suite.paper:
            values = () if paper is None else zip(_COLUMNS, paper, strict=True)
            cells.append(", ".join(f"{value:{_DIGITS[name]}}" for name, value in values))
        rows.append((result["title"], str(result["num_images"]), *cells))
    if suite.paper:
        headings = (*headings, "paper: entropy, variance, kurtosis")
    return Table(title="", headings=headings, rows=rows)


def _show(figure: FigureEntry | None, name: str) -> str:
    if figure is None:
        return ""
    value, low, high = (format(one, _DIGITS[name]) for one in (figure["value"], figure["low"], figure["high"]))
    return f"{value} ({low} to {high})"


def _identity(suite: Suite, request: Request, scale: str, judge_sha256: str) -> dict[str, object]:
    """What all cells of a folder share."""
    models = {"checkpoint": hash_checkpoint(request.checkpoint), "judge": judge_sha256}
    models["dense"] = "" if request.dense is None else hash_checkpoint(request.dense)
    return {"suite": suite.name, "scale": scale, **models, "data": request.data or "",
            "count": request.count, "seed": request.seed}  # fmt: skip
