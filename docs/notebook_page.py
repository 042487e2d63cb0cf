"""A hook of mkdocs: `{{ notebook("samples/x.ipynb") }}` on a page becomes the notebook's cells and stored outputs."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

_CALL = re.compile(r'^\{\{ notebook\("([^"]+)"\) \}\}$', re.MULTILINE)
_EMPTY_LINES = re.compile(r"\n\s*\n")
_ROOT = Path(__file__).parents[1]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """What mkdocs calls with each page."""
    return _CALL.sub(lambda call: render_notebook(_ROOT / call[1]), markdown)


def render_notebook(file: Path) -> str:
    """The cells of a notebook as Markdown, each followed by what it showed when it was last run."""
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join(_render_cell(cell) for cell in cells)


def _render_cell(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    return "\n\n".join([f"```python\n{source}\n```", *map(_render_output, cell["outputs"])])


def _render_output(output: dict[str, Any]) -> str:
    """The richest form of an output, as Jupyter would show it."""
    if output["output_type"] == "stream":
        return _block(f"<pre>{html.escape(''.join(output['text']))}</pre>")
    if output["output_type"] == "error":
        raise ValueError(f"a stored output is an error: {output['ename']}")
    data = output["data"]
    if "text/html" in data:
        return _block("".join(data["text/html"]))
    if "image/png" in data:
        return _block(f'<img alt="what the cell drew" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">')
    return _block(f"<pre>{html.escape(''.join(data['text/plain']))}</pre>")


def _block(content: str) -> str:
    # without empty lines, which would end raw HTML in Markdown
    text = _EMPTY_LINES.sub("\n", content)
    return f'<div class="output">{text}</div>'
