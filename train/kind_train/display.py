"""Progress on stderr: a bar in a terminal, a plain line now and then in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress

from kind_core.console.tables import PlainColumn, say

LINE_INTERVAL_S = 30.0
# completed, total, and a word about how it goes
Update = Callable[[int, int, str], None]


def ignore_progress(completed: int, total: int, status: str) -> None:
    """Shows nothing."""


@contextmanager
def show_progress(console: Console, what: str) -> Iterator[Update]:
    """Yield the function that is told how far the work is."""
    if not console.is_terminal:
        yield _LineWriter(console, what)
        return
    status_column = PlainColumn("{task.fields[status]}")
    columns = (PlainColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), status_column)
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=None, status="")
        yield lambda completed, total, status: bar.update(task, completed=completed, total=total, status=status)


class _LineWriter:
    """Writes the first update that comes `LINE_INTERVAL_S` after the last line, and the final one."""

    def __init__(self, console: Console, what: str) -> None:
        self._console, self._what = console, what
        self._last_s = time.monotonic()

    def __call__(self, completed: int, total: int, status: str) -> None:
        now_s = time.monotonic()
        if completed < total and now_s - self._last_s < LINE_INTERVAL_S:
            return
        self._last_s = now_s
        say(self._console, f"{self._what} {completed}/{total} {status}".rstrip())
