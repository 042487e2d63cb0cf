"""A hook of mkdocs. On a page, a line of its own

{{ notebook("samples/x.ipynb") }}   becomes the notebook's cells and what they showed when they were last run,
{{ source("samples/x.py") }}        the file,
{{ help("kind_runtimes.cli", "kind-run") }}   what `kind-run --help` prints, and each of its subcommands.
"""

from __future__ import annotations

import html
import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

_CALL = re.compile(r'^\{\{ (notebook|source|help)\("([^"]+)"(?:, "([^"]+)")?\) \}\}$', re.MULTILINE)
_EMPTY_LINES = re.compile(r"\n\s*\n")
_ROOT = Path(__file__).parents[1]
_WORKER = "iframe-worker.js"  # of npm's iframe-worker 1.0.4, MIT: the search from a folder, without another host
_WIDTH = 88


def on_config(config: Any) -> Any:
    """The worker of the search from this site; the theme's offline plugin would name another host's."""
    config.extra["polyfills"] = [_WORKER]
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """What mkdocs calls with each page."""
    renderers = {"notebook": render_notebook, "source": render_source, "help": render_help}
    return _CALL.sub(lambda call: renderers[call[1]](*filter(None, call.groups()[1:])), markdown)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """The worker's address as seen from the page."""
    return output.replace(f'src="{_WORKER}"', f'src="{get_relative_url(_WORKER, page.url)}"')


def render_notebook(file: str) -> str:
    """The cells of a notebook as Markdown, each followed by its stored outputs."""
    cells = json.loads((_ROOT / file).read_text(encoding="utf-8"))["cells"]
    return "\n\n".join(_render_cell(cell) for cell in cells)


def render_source(file: str) -> str:
    """A Python file as a code block."""
    return f'```python title="{file}"\n{(_ROOT / file).read_text(encoding="utf-8")}```'


def render_help(module: str, name: str) -> str:
    """The help of a command and, where it is a group, of each command in it."""
    main: click.Group = import_module(module).main
    context = click.Context(main, info_name=name, terminal_width=_WIDTH)
    parts = [f"## {name}", _block_of_help(main, context)]
    for inner_name in main.list_commands(context):
        inner = main.commands[inner_name]
        inner_context = click.Context(inner, info_name=inner_name, parent=context, terminal_width=_WIDTH)
        parts += [f"### {name} {inner_name}", _block_of_help(inner, inner_context)]
    return "\n\n".join(parts)


def _block_of_help(command: click.Command, context: click.Context) -> str:
    return f"```text\n{command.get_help(context)}\n```"


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
        address = f"data:image/png;base64,{''.join(data['image/png']).strip()}"
        return _block(f'<img alt="what the cell drew" src="{address}">')
    return _block(f"<pre>{html.escape(''.join(data['text/plain']))}</pre>")


def _block(content: str) -> str:
    # an empty line would end raw HTML in Markdown
    text = _EMPTY_LINES.sub("\n", content)
    return f'<div class="output">{text}</div>'
