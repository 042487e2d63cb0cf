"""Tables and progress bars of a terminal, in which no text is markup. It loads rich: import it where it is needed."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import Task, TextColumn
from rich.text import Text

from kind_core.console import clean, verbosity


class PlainConsole(Console):
    """A console that shows text as it is: brackets, colons and numbers mean nothing, and controls are written out."""

    def render_str(self, text: str, **options: Any) -> Text:  # rich names all nine
        """What every text goes through: lines, cells and titles of tables."""
        return super().render_str(clean(text), **(options | {"markup": False, "emoji": False, "highlight": False}))


class PlainColumn(TextColumn):
    """A column of a progress bar, from a template such as `{task.description}`."""

    def render(self, task: Task) -> Text:
        return Text(clean(self.text_format.format(task=task)), style=self.style, justify=self.justify)


def open_console(*, stderr: bool = False, quiet: bool = False) -> PlainConsole:
    """The console of a command; it follows sys.stdout, or sys.stderr, where --quiet wants nothing."""
    return PlainConsole(stderr=stderr, quiet=quiet or (stderr and verbosity() < 0))


def say(console: Console, line: str, style: str | None = None) -> None:
    """One line, which is not wrapped: names of files stay whole."""
    console.print(Text(clean(line), style=style or ""), soft_wrap=True)
