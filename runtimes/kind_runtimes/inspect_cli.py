"""`kind-run inspect`: what a bundle, a program or a pack says of itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from kind_core.console import echo
from kind_core.console.commands import PlainCommand, report_errors


@click.command("inspect", cls=PlainCommand)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@report_errors
def inspect(path: Path, as_json: bool) -> None:
    """Print what PATH is: a bundle, a program found alone (.onnx, .mlpackage, .pte) or a .pack. Nothing is run.

    \b
    Examples:
      kind-run inspect panda.kind
      kind-run inspect step.onnx
    """
    from kind_runtimes.inspection import inspect_path

    found = inspect_path(path)
    if as_json:
        fields = {"kind": found.kind, "path": str(found.path), "size_bytes": found.size_bytes, "note": found.note}
        echo(json.dumps(fields | dict(found.facts)))
        return
    rows = [("path", str(found.path)), ("what", f"{found.kind}, {found.size_bytes:,} bytes")]
    rows += [("note", found.note)] if found.note else []
    rows += [row for name, value in found.facts.items() for row in _rows(name, value)]
    width = max(len(label) for label, _ in rows)
    for label, text in rows:
        echo(f"{label:<{width}}  {text}")


def _rows(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """A fact as lines of a label and a text; what is a list or an object has one for each of its parts."""
    if isinstance(value, dict) and value and all(isinstance(one, dict) for one in value.values()):
        for key, one in value.items():
            yield from _rows(f"{name}.{key}", one)
    elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        for index, one in enumerate(value):
            yield name if index == 0 else "", _line(one)
    elif isinstance(value, dict):
        yield name, ", ".join(f"{key} {_word(one)}" for key, one in value.items())
    elif isinstance(value, list):
        yield name, " x ".join(map(str, value)) if name.endswith("shape") else ", ".join(map(str, value))
    else:
        yield name, str(value)


def _word(value: Any) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)


def _line(entry: dict[str, Any]) -> str:
    """A tensor, a class or a pack in one line."""
    if "shape" in entry:
        return f"{entry['name']}  {' x '.join(map(str, entry['shape']))}  {entry['dtype']}"
    if "names" in entry:
        return f"{entry['id']}  {', '.join(entry['names'])}"
    return "  ".join(str(value) for value in entry.values())
