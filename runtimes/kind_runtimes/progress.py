"""Where long work stands, and a bar that shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kind_core.console import echo


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """`done` of `total` parts of the work, and what is going on."""

    stage: str
    done: int
    total: int


OnProgress = Callable[[Progress], None]


@contextmanager
def show_progress(first_stage: str) -> Iterator[OnProgress]:
    """A bar on stderr; where that is no terminal, a line a stage."""
    from rich.progress import BarColumn, SpinnerColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    from kind_core.console.tables import PlainColumn, open_console

    console = open_console(stderr=True)
    columns = (SpinnerColumn(), PlainColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True, refresh_per_second=4, disable=not console.is_terminal) as bar:
        task = bar.add_task(first_stage)
        stages: list[str] = []

        def show(progress: Progress) -> None:
            bar.update(task, description=progress.stage, completed=progress.done, total=progress.total)
            if progress.stage not in stages[-1:]:
                stages.append(progress.stage)
                if not console.is_terminal:
                    echo(progress.stage, err=True)

        yield show
