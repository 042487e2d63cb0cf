"""One vocabulary over the four command lines: spellings, choices, units, defaults, and how much is said."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from kind_bench.cli import main as bench
from kind_core.console import echo
from kind_core.console.commands import PlainGroup, report_errors
from kind_core.console.vocabulary import Named
from kind_core.errors import ConfigError, KindError
from kind_export.cli import main as export
from kind_runtimes.cli import main as run
from kind_train.cli import main as train

PROGRAMS: dict[str, click.Group] = {"kind-export": export, "kind-run": run, "kind-train": train, "kind-bench": bench}


def walk() -> Iterator[tuple[str, click.Command]]:
    for name, program in PROGRAMS.items():
        yield name, program
        yield from ((f"{name} {sub}", command) for sub, command in program.commands.items())


COMMANDS = dict(walk())
OPTIONS = {
    f"{name} {option.opts[-1]}": (name, option)
    for name, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, click.Option)
}


@pytest.mark.parametrize("place", OPTIONS)
def test_an_option_has_a_text_a_default_and_a_unit(place: str) -> None:
    _, option = OPTIONS[place]
    text = re.sub(r"\[.*?\]", "", option.help or "").strip()
    assert len(text.split()) >= 2, f"{place} says nothing: {option.help!r}"
    assert text.endswith((".", ":")), place
    is_value = not option.is_flag and not option.multiple and not option.required
    is_number = isinstance(option.type, click.types.IntParamType | click.types.FloatParamType)
    if is_number:
        assert option.metavar, f"{place} does not say what it counts"
    if is_value and (is_number or isinstance(option.type, click.Choice)) and option.name != "completion":
        assert option.show_default or "[" in (option.help or ""), f"{place} does not say what holds without it"


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_is_spelled_as_everywhere(name: str) -> None:
    context = COMMANDS[name].make_context(name, [], resilient_parsing=True)
    spelled = {one for param in COMMANDS[name].get_params(context) for one in param.opts}
    for spellings in (("-o", "--output"), ("--classes", "--class"), ("--licence", "--license"), ("-q", "--quiet")):
        assert spelled.issuperset(spellings) or spelled.isdisjoint(spellings), spellings
    assert {"-q", "--quiet", "-v", "--verbose"} <= spelled
    for param in COMMANDS[name].params:
        if "--precision" in param.opts and "--compute" not in param.opts:  # what is stored
            assert isinstance(param.type, Named)
            assert "bf16" not in param.type.choices
        assert "--strict" not in param.opts or "--stop-at-unreadable" in param.opts or name in (
            "kind-export", "kind-bench lint",
        ), f"--strict of {name} means something else"  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_list_of_commands_is_not_cut_off(program: str) -> None:
    text = CliRunner().invoke(PROGRAMS[program], ["--help"], terminal_width=80).stdout.partition("\nCommands:\n")[2]
    assert "..." not in text
    assert text.count(".\n") >= len(PROGRAMS[program].commands) or program == "kind-train"


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("kind-train", ["fit", "--precision", "fp32", "--strict", "--output", "x", "--class", "a"]),
        ("kind-train", ["fit", "--compute", "fp32", "--skip-unreadable", "-o", "x", "--classes", "a"]),
        ("kind-train", ["fit", "--no-strict", "--config", "x.yaml"]),
        ("kind-train", ["cache", "--data", "a", "--autoencoder", "b", "--output", "c", "--strict"]),
        ("kind-train", ["convert", "a", "b", "--dtype", "fp16", "--license", "mit"]),
        ("kind-train", ["convert", "a", "-o", "b", "--precision", "fp32", "--licence", "mit"]),
        ("kind-train", ["imagenet-split", "a", "-o", "b"]),
        ("kind-run", ["draw", "a.kind", "--classes", "panda"]),
        ("kind-export", ["--class", "panda", "--target", "onnx,coreml"]),
    ],
)
def test_every_spelling_is_taken(program: str, words: list[str]) -> None:
    command: click.Command = PROGRAMS[program]
    if words[0] in PROGRAMS[program].commands:
        command, words = PROGRAMS[program].commands[words[0]], words[1:]
    command.make_context("x", words)


def test_the_spellings_mean_the_same() -> None:
    old = train.commands["fit"].make_context("fit", ["--precision", "fp32", "--strict", "--output", "x"]).params
    new = train.commands["fit"].make_context("fit", ["--compute", "fp32", "--stop-at-unreadable", "-o", "x"]).params
    assert old == new
    assert (new["precision"], new["strict"], new["output"]) == ("fp32", True, "x")


@pytest.mark.parametrize("words", [["a"], ["a", "b", "-o", "c"]])
def test_an_output_is_given_once(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(train, ["convert", *words])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: expected one output")


def test_names_are_offered_and_listed() -> None:
    for place in ("kind-export --precision", "kind-export --sampler", "kind-train init --tailors"):
        _, option = OPTIONS[place]
        assert isinstance(option.type, click.Choice)
        context = click.Context(click.Command("x"))
        offered = [item.value for item in option.type.shell_complete(context, option, "")]
        assert offered == list(option.type.choices)
        assert "|".join(offered) in (option.make_metavar(context) or "")


@click.group(cls=PlainGroup)
def speaking() -> None:
    pass


@speaking.command()
@report_errors
def speak() -> None:
    """Say a result, a note and an error."""
    echo("result")
    echo("note", err=True)
    raise ConfigError("wrong", "right it")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["speak"], ["note", "error: wrong", "hint: right it"]),
        (["speak", "-q"], ["error: wrong", "hint: right it"]),
        (["-q", "speak"], ["error: wrong", "hint: right it"]),
    ],
)
def test_quiet_leaves_results_and_errors(words: list[str], expected: list[str]) -> None:
    result = CliRunner().invoke(speaking, words)
    assert (result.exit_code, result.stdout.splitlines()) == (1, ["result"])
    assert result.stderr.splitlines() == expected


@pytest.mark.parametrize("kind", KindError.__subclasses__())
def test_every_error_names_a_next_step(kind: type[KindError]) -> None:
    @click.command()
    @report_errors
    def fail() -> None:
        raise kind("wrong")

    error, *hints = CliRunner().invoke(fail).stderr.splitlines()
    assert error == "error: wrong"
    assert len(hints) == 1
    assert re.fullmatch(r"hint: \S+ .*", hints[0])


def test_verbose_says_where_an_error_comes_from() -> None:
    result: Any = CliRunner().invoke(speaking, ["speak", "-v"])
    assert "test_vocabulary.py" in result.stderr
    assert result.stderr.splitlines()[-2:] == ["error: wrong", "hint: right it"]
