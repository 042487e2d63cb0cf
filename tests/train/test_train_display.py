"""Progress: a bar in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kind_train import display
from kind_train.display import say, show_progress


def make_console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=terminal, width=60), stream


def test_outside_a_terminal_there_is_a_line_every_half_minute_and_one_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock_s = 1000.0
    monkeypatch.setattr(display.time, "monotonic", lambda: clock_s)
    console, stream = make_console(terminal=False)
    with show_progress(console, "images") as update:
        for done in range(1, 91):
            clock_s += 0.7
            update(
                done, 90, f"loss {done / 10} | 64 images/s | 0:01:00 left, and a line longer than the console is wide"
            )
    lines = stream.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["43/90", "86/90", "90/90"]
    assert lines[0] == "images 43/90 loss 4.3 | 64 images/s | 0:01:00 left, and a line longer than the console is wide"


def test_in_a_terminal_there_is_a_bar() -> None:
    console, stream = make_console(terminal=True)
    with show_progress(console, "images") as update:
        update(30, 90, "loss 1.0")
        update(90, 90, "loss 0.5")
    assert "━" in stream.getvalue()
    assert "90/90" in stream.getvalue()
    assert "loss 0.5" in stream.getvalue()


def test_names_are_printed_as_they_are() -> None:
    console, stream = make_console(terminal=False)
    name = "photos/[bold]/" + "x" * 80 + ".png"
    say(console, f"skipped unreadable image {name}", style="yellow")
    assert stream.getvalue() == f"skipped unreadable image {name}\n"
