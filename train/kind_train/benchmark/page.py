"""The page of a suite's results: one HTML file, without scripts and without anything to load."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kind_train.benchmark.results import Table

_CAPTIONS = {
    "pictures.png": "One row a method, the same start noise in every row.",
    "curve.png": "Over the training images seen.",
}


def render_page(title: str, notes: Sequence[str], tables: Sequence[Table], pictures: Mapping[str, bytes]) -> str:
    """`pictures` are PNG files by their names; texts are escaped."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader("kind_train"), PackageLoader("kind_core")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = [
        {"source": f"data:image/png;base64,{base64.b64encode(png).decode()}", "caption": _CAPTIONS[name], "name": name}
        for name, png in pictures.items()
    ]
    return environment.get_template("results.html").render(title=title, notes=notes, tables=tables, pictures=shown)
