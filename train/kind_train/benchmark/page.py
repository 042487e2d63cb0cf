"""The page of a suite's results: one HTML file, without scripts and without anything to load."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kind_train.benchmark.results import Table

_WITH_BRACKETS = re.compile(r"(\S+) \((.+)\)")
_CAPTIONS = {
    "pictures.png": "One row a method, the same start noise in every row.{columns}",
    "curve.png": "Over the training images seen.",
}


def render_page(
    title: str, notes: Sequence[str], tables: Sequence[Table], pictures: Mapping[str, bytes], columns: str = ""
) -> str:
    """`pictures` are PNG files by their names, `columns` says what stands in those of the first; texts are escaped."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader("kind_train"), PackageLoader("kind_core")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = [
        {
            "source": f"data:image/png;base64,{base64.b64encode(png).decode()}",
            "caption": _CAPTIONS[name].format(columns=columns),
            "name": name,
        }
        for name, png in pictures.items()
    ]
    environment.filters["parted"] = _part
    return environment.get_template("results.html").render(title=title, notes=notes, tables=tables, pictures=shown)


def _part(cell: str) -> tuple[str, str]:
    """A figure and what stands behind it in brackets, its interval or the paper's order."""
    found = _WITH_BRACKETS.fullmatch(cell)
    return (cell, "") if found is None else (found[1], found[2])
