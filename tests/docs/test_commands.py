"""Every command in the documentation is one that the command lines take; nothing is run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kind_bench.cli import main as kind_bench
from kind_core.checkpoint_config import read_config
from kind_core.console.commands import parse_interval
from kind_core.samplers import ALL_STEPS
from kind_core.schedule import choose_sampling
from kind_export import console, request
from kind_export.cli import main as kind_export
from kind_export.request import ExportRequest
from kind_runtimes.cli import main as kind_run
from kind_samples import SAMPLES, sample_checkpoint
from kind_train.cli import main as kind_train

ROOT = Path(__file__).parents[2]
COMMANDS = {"kind-export": kind_export, "kind-run": kind_run, "kind-bench": kind_bench, "kind-train": kind_train}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "samples").rglob("README.md"))]


def find_commands(text: str) -> list[str]:
    """The lines of plain code blocks that call one of ours, joined where they are continued."""
    lines: list[str] = []
    language: str | None = None  # of the block that is open; "" of a plain one
    for line in map(str.strip, text.splitlines()):
        if line.startswith("```"):
            language = line[3:] if language is None else None
        elif language == "":
            lines.append(line)
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    parts = (part.strip() for line in joined for part in re.split(r"&&|\||>>", line.partition(" #")[0]))
    return [part for part in parts if part.split(" ")[0] in COMMANDS]


def parse(command: click.Command, name: str, arguments: list[str]) -> None:
    """Read the arguments as the command would; raises UsageError. Options that print and leave count as read."""
    try:
        context = command.make_context(name, arguments)
    except click.exceptions.Exit:
        return
    rest = [*context._protected_args, *context.args]
    if isinstance(command, click.Group) and rest:
        inner_name, inner, arguments = command.resolve_command(context, rest)
        assert inner is not None
        parse(inner, str(inner_name), arguments)


def find_examples(command: click.Command) -> list[str]:
    """The examples in the help of a command and of those below it."""
    parts = [part.strip() for line in (command.help or "").splitlines() for part in line.split("&&")]
    inner = command.commands.values() if isinstance(command, click.Group) else ()
    return [part for part in parts if part.split(" ")[0] in COMMANDS] + [
        call for one in inner for call in find_examples(one)
    ]


CALLS = [(page.relative_to(ROOT).as_posix(), call) for page in PAGES for call in find_commands(page.read_text())]
CALLS += [(f"{name} --help", call) for name, command in COMMANDS.items() for call in find_examples(command)]
EXPORTS = [(page, call) for page, call in CALLS if call.startswith("kind-export --") and "--completion" not in call]


@pytest.mark.parametrize(("page", "call"), CALLS)
def test_the_command_is_understood(page: str, call: str) -> None:
    name, *arguments = shlex.split(call)
    parse(COMMANDS[name], name, arguments)


@pytest.mark.parametrize(("page", "call"), EXPORTS)
def test_an_export_asks_for_all_that_it_needs(page: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ExportRequest] = []
    monkeypatch.setattr(request, "find_spec", lambda name: object())  # of targets that are an extra
    for name in ("run_export", "run_packs"):
        monkeypatch.setattr(console, name, lambda one, *, as_json: asked.append(one))
    result = CliRunner().invoke(kind_export, shlex.split(call)[1:])
    assert result.exit_code == 0, f"{page}: {result.output}"
    assert len(asked) == 1


@pytest.mark.parametrize(("page", "call"), EXPORTS)
def test_the_sample_draws_as_the_command_asks(page: str, call: str) -> None:
    context = kind_export.make_context("kind-export", shlex.split(call)[1:])
    asked = context.params
    if asked["checkpoint"] is not None or asked["from_diffusers"] is not None or "--base" in call:
        return
    diffusion = read_config(sample_checkpoint(asked["sample"] or SAMPLES[0])).diffusion
    interval = asked["guidance_interval"]
    choose_sampling(
        diffusion,
        sampler=asked["sampler"],
        steps=asked["steps"],
        guidance_scale=asked["guidance"],
        guidance_interval=ALL_STEPS if interval is None else parse_interval(interval),
    )
    assert diffusion.distillation is None or "diffusers" not in asked["targets"]


def test_a_wrong_option_would_be_noticed() -> None:
    assert len(CALLS) > 60
    with pytest.raises(click.UsageError):
        parse(kind_export, "kind-export", ["--classes", "panda", "--taget", "onnx"])
    with pytest.raises(click.UsageError):
        parse(kind_bench, "kind-bench", ["run", "panda.kind", "--thread-count", "1"])
