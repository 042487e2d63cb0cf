"""What the three command lines share: completion scripts that work, NO_COLOR, an example in every help text."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from kind_bench.cli import main as bench
from kind_core.console.commands import SHELLS
from kind_export.cli import main as export
from kind_runtimes.cli import inspect
from kind_runtimes.cli import main as run
from kind_train.cli import main as train

PROGRAMS: dict[str, click.Command] = {"kind-export": export, "kind-run": run, "kind-train": train, "kind-bench": bench}
COLOUR = re.compile(rb"\x1b\[[0-9;]*(?:3[0-8]|9[0-7])[0-9;]*m")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("shell", SHELLS)
def test_a_completion_script_is_printed(program: str, shell: str) -> None:
    done = CliRunner().invoke(PROGRAMS[program], ["--completion", shell])
    assert done.exit_code == 0, done.output
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    assert f"{variable}={shell}_complete" in done.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True)


def test_another_shell_is_refused() -> None:
    done = CliRunner().invoke(export, ["--completion", "tcsh"])
    assert done.exit_code == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("kind-export --lat", ["plain,--latents-only"]),
        ("kind-export --target c", ["plain,coreml"]),
        ("kind-export --precision palette", ["plain,palette6", "plain,palette4"]),
        ("kind-export cl", ["plain,classes"]),
        ("kind-train e", ["plain,embed", "plain,evaluate"]),
    ],
)
def test_the_shell_is_offered_what_fits(words: str, expected: list[str]) -> None:
    program, *_ = words.split()
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    environment = {variable: "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = CliRunner().invoke(PROGRAMS[program], [], prog_name=program, env=environment, complete_var=variable)
    assert done.stdout.splitlines() == expected


def _commands() -> Iterator[tuple[str, click.Command]]:
    for name, program in {**PROGRAMS, "kind-run inspect": inspect}.items():
        yield name, program
        if isinstance(program, click.Group):
            yield from ((f"{name} {sub}", command) for sub, command in program.commands.items())


@pytest.mark.parametrize(("name", "command"), _commands(), ids=[name for name, _ in _commands()])
def test_every_help_text_has_an_example(name: str, command: click.Command) -> None:
    text = CliRunner().invoke(command, ["--help"]).stdout
    assert re.search(rf"^ +{re.escape(name)}\b", text.partition("Example")[2], re.MULTILINE), text


@pytest.mark.parametrize(("no_color", "expected"), [({"NO_COLOR": "1"}, False), ({}, True)])
def test_no_color_is_respected(no_color: dict[str, str], expected: bool) -> None:
    code = """
import time
from kind_runtimes.progress import Progress, show_progress
with show_progress("starting") as show:
    for done in range(4):
        show(Progress(stage="drawing", done=done, total=4))
        time.sleep(0.3)
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    seen = _run_in_terminal([sys.executable, "-c", code], environment | no_color | {"TERM": "xterm-256color"})
    assert b"drawing" in seen
    assert bool(COLOUR.search(seen)) == expected


def _run_in_terminal(command: list[str], environment: dict[str, str]) -> bytes:
    """All that a program writes to a terminal."""
    ours, theirs = pty.openpty()
    path = os.pathsep.join(one or os.getcwd() for one in sys.path)
    process = subprocess.Popen(
        command, stdout=theirs, stderr=theirs, stdin=theirs, env=environment | {"PYTHONPATH": path}
    )
    os.close(theirs)
    seen = b""
    while process.poll() is None or select.select([ours], [], [], 0)[0]:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                seen += os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
    os.close(ours)
    assert process.wait() == 0, seen
    return seen
