"""`kind-run`: the command line of the runtimes. It parses, calls one library function and prints.

`draw` is the command that is meant where none is named: `kind-run panda.kind`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kind_core.console import echo
from kind_core.console.commands import PlainCommand, PlainGroup, completion_option, report_errors
from kind_core.console.vocabulary import PATH, Named
from kind_core.files.near_paths import find_near
from kind_runtimes.engine_rows import ENGINES
from kind_runtimes.progress import show_progress

if TYPE_CHECKING:
    from kind_runtimes.draw import RunResult

_CONTEXT = {"help_option_names": ["-h", "--help"]}
_DEFAULT = "draw"
_OWN_OPTIONS = frozenset({*_CONTEXT["help_option_names"], "--version", "--completion"})


class _DrawByDefault(PlainGroup):
    """A group whose first word is a bundle to draw unless it is a command; its help is that of `draw`, and the list."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].isalpha() and not ctx.resilient_parsing and find_near(Path(args[0])) is None:
            near = get_close_matches(args[0], self.commands)
            if near and args[0] not in self.commands:
                raise click.exceptions.NoSuchCommand(args[0], possibilities=near, ctx=ctx)
        if not args or (args[0] not in self.commands and args[0].partition("=")[0] not in _OWN_OPTIONS):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS]", "BUNDLE"]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        draw = self.commands[_DEFAULT]
        parameters = [one for one in (*draw.params, *self.get_params(ctx)) if isinstance(one, click.Option)]
        options = [one.get_help_record(ctx) for one in parameters]
        with formatter.section("Options"):
            formatter.write_dl([record for record in options if record is not None])
        self.format_commands(ctx, formatter)


@click.group(cls=_DrawByDefault, context_settings=_CONTEXT)
@click.version_option(package_name="kind-diffusion")
@completion_option("kind-run")
def main() -> None:
    """Draw pictures with the programs of BUNDLE, after checking that its files are the ones that were verified.

    Core ML programs run in Core ML on macOS; elsewhere the saved package is evaluated op by op, which is slow.

    \b
    Examples:
      kind-run panda.kind
      kind-run panda.kind --class panda --seed 7 --count 4 --scale 8 -o panda.png
      kind-run base.kind --pack panda.pack
      kind-run panda.kind --runtime executorch --count 4 -o panda.png --force
      kind-run photo.captions --text-embeddings lighthouse.safetensors -o lighthouse.png
      kind-run serve panda.kind
      kind-run inspect step.onnx
    """


@main.command(_DEFAULT, context_settings=_CONTEXT)
@click.argument("bundle", type=PATH)
@click.option("--class", "class_name", metavar="NAME", help="Class to draw, by name or id [the bundle's only one].")
@click.option("--pack", type=PATH, help="Pack to attach, where the bundle is a base.")
@click.option(
    "--text-embeddings",
    metavar="FILE",
    type=PATH,
    help="Embedded caption to draw, by kind-train embed --caption: for a bundle of captions.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the first picture, then counted up.")
@click.option("--count", type=int, default=1, show_default=True, help="Number of pictures.")
@click.option(
    "--runtime", type=Named(ENGINES), help="What runs it [the first that runs here]; diffusers runs code of the bundle."
)
@click.option("--guidance", type=float, help="Guidance scale [the bundle's].")
@click.option("--columns", type=int, help="Pictures a row [as square as it gets].")
@click.option("--scale", type=int, default=1, show_default=True, help="Enlarge pictures so many times, smoothly.")
@click.option("--sharp", is_flag=True, help="Enlarge each pixel to a sharp square instead.")
@click.option("-o", "--output", type=PATH, help="Image to write [<class>.png].")
@click.option("--force", is_flag=True, help="Replace an existing image.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@report_errors
def draw(as_json: bool, **options: Any) -> None:
    """Draw pictures; what is meant where no command is named.

    \b
    Example:
      kind-run draw panda.kind --seed 7
    """
    from kind_runtimes.draw import RunRequest, run_bundle

    with show_progress("checking the bundle") as show:
        result = run_bundle(RunRequest(**options), show)
    if result.note:
        echo(result.note, err=True)
    _print(result, as_json)


@main.command(cls=PlainCommand, context_settings=_CONTEXT)
@click.argument("bundle", type=PATH)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0: also other machines and proxies.")
@click.option("--open", "open_browser", is_flag=True, help="Open the page in the browser.")
@report_errors
def serve(bundle: Path, port: int, host: str, open_browser: bool) -> None:
    """Serve a page that draws with BUNDLE in the browser.

    Its ONNX programs are used, after checking that its files are the ones that were verified. All is computed in the
    browser, and works there without this server once it was opened. Ctrl-C ends it.

    \b
    Examples:
      kind-run serve panda.kind
      kind-run serve panda.kind --port 9000 --open
    """
    from kind_runtimes.serve import open_server

    with open_server(bundle, host, port) as server:
        echo(f"page  {server.url}")
        for note in server.notes:
            echo(note, err=True)
        echo("press Ctrl-C to end", err=True)
        if open_browser:
            click.launch(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            echo("ended", err=True)


@main.command(cls=PlainCommand)
@click.argument("path", type=PATH)
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


def _print(result: RunResult, as_json: bool) -> None:
    if as_json:
        fields = {
            "path": str(result.path),
            "class": {"id": result.info.id, "name": result.info.name},
            "seeds": result.seeds,
            "guidance": result.guidance,
            "runtime": result.runtime,
            "engine": result.engine,
            "seconds": round(result.seconds, 3),
        }
        echo(json.dumps(fields))
        return
    first, last = result.seeds[0], result.seeds[-1]
    echo(f"class    {result.info.name} ({result.info.id}), guidance {result.guidance:g}")
    echo(f"seed     {first}" if first == last else f"seeds    {first} to {last}")
    echo(f"runtime  {result.engine}, {result.seconds:.1f} s")
    echo(f"picture  {result.path}")


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
