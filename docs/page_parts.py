"""A hook of mkdocs. On a page, a line of its own

{{ notebook("samples/x.ipynb") }}   becomes the notebook's cells and what they showed when they were last run,
{{ source("samples/x.py") }}        the file,
{{ help("kind_runtimes.cli", "kind-run") }}   what the options of `kind-run` and of each of its subcommands mean.
"""

from __future__ import annotations

import html
import inspect
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
_MARKUP = str.maketrans({"[": "&#91;", "*": "&#42;", "|": "&#124;"})  # what Markdown would read in a command's text
_WORKER = "iframe-worker.js"  # of npm's iframe-worker 1.0.4, MIT: the search from a folder, without another host


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
    """The options of a command and, where it is a group, each command in it: what it does, examples, options."""
    main: click.Group = import_module(module).main
    context = click.Context(main, info_name=name)
    parts = [*_describe_text(main), f"### Options of {name}", _table_of_options(main, context)]
    for inner_name in main.list_commands(context):
        inner = main.commands[inner_name]
        inner_context = click.Context(inner, info_name=inner_name, parent=context)
        usage = f"```text\n{inner.get_usage(inner_context).removeprefix('Usage: ')}\n```"
        table = _table_of_options(inner, inner_context)
        parts += [f"### {name} {inner_name}", usage, *_describe_text(inner), table]
    return "\n\n".join(parts)


def _describe_text(command: click.Command) -> list[str]:
    """The paragraphs of a command's text; those after a form feed or a backspace are laid out as they are."""
    parts = []
    for paragraph in inspect.cleandoc(command.help or "").partition("\f")[0].split("\n\n"):
        lines = paragraph.removeprefix("\b\n").splitlines()
        is_layout = paragraph.startswith("\b")
        if is_layout:
            parts.append(f"{lines[0]}\n\n```text\n" + "\n".join(line.strip() for line in lines[1:]) + "\n```")
        else:
            parts.append(_text(" ".join(lines)))
    return parts


def _table_of_options(command: click.Command, context: click.Context) -> str:
    """Each option, what it means, and in brackets what holds without it; -q, -v and --help are those of all."""
    options = [one for one in command.params if isinstance(one, click.Option)]
    records = [record for one in options if (record := one.get_help_record(context)) is not None]
    rows = [f"| {_code(spelled)} | {_cell(text)} |" for spelled, text in records]
    return "\n".join(["| option | |", "|---|---|", *rows])


def _code(text: str) -> str:
    return f"<code>{_cell(text)}</code>"


def _cell(text: str) -> str:
    return _text(" ".join(text.split()))


def _text(text: str) -> str:
    return html.escape(text, quote=False).translate(_MARKUP)


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
