"""What is printed: text of strangers stays text.

Names of classes and files, labels, option values and what engines say may hold escape sequences, which rewrite lines,
titles and clipboards of a terminal. Everything that a command prints goes through `clean`: lines by `echo`, blocks of
lines by `echo_lines`, tables and bars by `kind_core.console.tables`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable

# Controls of ASCII and of Latin-1, line and paragraph separators, what turns the direction of writing, lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str) -> str:
    r"""`text` in one line, with every character that a terminal would obey written as `\u001b`, as in JSON."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def join_lines(lines: Iterable[str]) -> str:
    """Lines as a block, each cleaned on its own."""
    return "\n".join(map(clean, lines))


def echo(line: str = "", *, err: bool = False) -> None:
    """Print one line to stdout, or to stderr, where --quiet wants none."""
    if not err or verbosity() >= 0:
        _write(clean(line), err=err)


def tell(line: str) -> None:
    """Print a line of an error to stderr, which --quiet does not silence."""
    _write(clean(line), err=True)


def announce_loading() -> None:
    """Say that PyTorch is being loaded, which takes seconds, where it is not loaded yet; of several processes, one."""
    if "torch" not in sys.modules and os.environ.get("RANK", "0") == "0":
        echo("loading PyTorch", err=True)


def verbosity() -> int:
    """-1 with --quiet, 1 with --verbose, else 0: of the command that runs."""
    import click

    context = click.get_current_context(silent=True)
    return 0 if context is None else int(context.find_root().meta.get("kind_core.verbosity", 0))


def echo_lines(text: str, *, err: bool = False) -> None:
    """Print a block of lines: JSON, or what `join_lines` joined."""
    _write(join_lines(text.removesuffix("\n").split("\n")), err=err)


def _write(text: str, *, err: bool) -> None:
    import click

    click.echo(text, err=err)


def count_of(number: int, noun: str) -> str:
    """`1 step`, `4 steps`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
