"""`kind-run serve`: a bundle as a web page on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from kind_core.console import echo
from kind_core.console.commands import PlainCommand, report_errors


@click.command(cls=PlainCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("bundle", type=click.Path(path_type=Path))
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
