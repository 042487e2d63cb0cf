"""The code cells of a notebook, run without Jupyter: no magics, one namespace, the last value is shown."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_code_cells(file: Path) -> list[dict[str, Any]]:
    """The code cells of a notebook, as they are stored."""
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def run_cells(cells: list[dict[str, Any]]) -> Iterator[object]:
    """What each cell's last line is worth, in order; None where it is no expression."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        tree = ast.parse("".join(cell["source"]))
        last = tree.body[-1] if tree.body else None
        if isinstance(last, ast.Expr):
            del tree.body[-1]
        exec(compile(tree, f"<cell {number}>", "exec"), namespace)
        shown = compile(ast.Expression(last.value), f"<cell {number}>", "eval") if isinstance(last, ast.Expr) else None
        yield None if shown is None else eval(shown, namespace)
