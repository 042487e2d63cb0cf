"""`optimum-cli export kind` has the options of kind-export and hands them on as they were given."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from argparse import ArgumentParser
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from kind_export import cli

ROOT = Path(__file__).parents[2]
# this package's own file makes a namespace of that name, so optimum is asked for by what only it has
HAS_OPTIMUM = find_spec("optimum") is not None and any(
    (Path(folder) / "commands" / "optimum_cli.py").exists()
    for folder in find_spec("optimum").submodule_search_locations or ()
)
REGISTER = ROOT / "export" / "optimum_register" / "register_kind.py"


@dataclass(frozen=True)
class CommandInfo:
    name: str
    help: str


class BaseOptimumCLICommand:
    """As much of optimum's as a command uses: it is built on a parser, then again on what was parsed."""

    def __init__(self, args: Any) -> None:
        self.args = args


class ExportCommand(BaseOptimumCLICommand):
    pass


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command on a stand-in for optimum, whose own dependencies are large; the test below runs the real one."""
    base, export = ModuleType("optimum.commands.base"), ModuleType("optimum.commands.export.base")
    base.BaseOptimumCLICommand, base.CommandInfo = BaseOptimumCLICommand, CommandInfo  # type: ignore[attr-defined]
    export.ExportCommand = ExportCommand  # type: ignore[attr-defined]
    for name in ("optimum", "optimum.commands", "optimum.commands.export"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, base.__name__, base)
    monkeypatch.setitem(sys.modules, export.__name__, export)
    monkeypatch.delitem(sys.modules, "kind_export.optimum_command", raising=False)
    yield importlib.import_module("kind_export.optimum_command").KindExportCommand
    sys.modules.pop("kind_export.optimum_command", None)


def parse(command: Any, *arguments: str) -> list[str]:
    """What kind-export is called with."""
    parser = ArgumentParser("optimum-cli export kind")
    command.parse_args(parser)
    given: list[str] = []
    module = sys.modules[command.__module__]
    original, module.main = module.main, _Recorder(module.main, given)  # type: ignore[attr-defined]
    try:
        command(parser.parse_args(list(arguments))).run()
    finally:
        module.main = original  # type: ignore[attr-defined]
    return given


class _Recorder:
    def __init__(self, main: click.Group, given: list[str]) -> None:
        self.params = main.params
        self._given = given

    def __call__(self, *, args: list[str], prog_name: str) -> None:
        assert prog_name == "optimum-cli export kind"
        self._given.extend(args)


def test_options_are_those_of_kind_export(command: Any) -> None:
    parser = ArgumentParser()
    command.parse_args(parser)
    theirs = {name for action in parser._actions for name in action.option_strings} - {"-h", "--help"}
    ours = {name for option in cli.main.params for name in option.opts}
    ours -= {"--version", "--completion", "-h", "--help"}  # of the program, not of an export
    assert theirs == ours
    text = parser.format_help()
    assert "optimum-cli export kind --classes panda --target coreml" in text
    assert "kind-export" not in text


def test_they_are_handed_on_as_given(command: Any) -> None:
    given = parse(command, "--classes", "panda", "--classes=koala", "--target", "all", "--packs", "-o", "base.kind")
    assert given == ["--classes=panda", "--classes=koala", "--target=all", "--packs", "--output=base.kind"]
    assert parse(command, "--guidance=-1.5") == ["--guidance=-1.5"]
    assert parse(command) == []


def test_the_registered_file_names_command_and_parent(command: Any) -> None:
    namespace: dict[str, Any] = {}
    exec(REGISTER.read_text(), namespace)
    assert namespace["REGISTER_COMMANDS"] == [(command, ExportCommand)]


def test_the_wheel_puts_it_where_optimum_looks() -> None:
    import tomllib

    targets = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    places = targets["wheel"]["force-include"]
    assert places[REGISTER.relative_to(ROOT).as_posix()] == "optimum/commands/register/register_kind.py"


@pytest.mark.slow
@pytest.mark.skipif(not HAS_OPTIMUM, reason="pip install optimum==2.3.0 to run it in optimum itself")
def test_optimum_lists_and_runs_it(tmp_path: Path) -> None:
    place = Path("optimum") / "commands" / "register" / REGISTER.name
    if not any((Path(folder) / place).exists() for folder in sys.path):  # there once this package was installed
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_bytes(REGISTER.read_bytes())

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = "from optimum.commands.optimum_cli import main; main()"
        path = os.pathsep.join([*(one or os.getcwd() for one in sys.path), str(tmp_path)])
        return subprocess.run(
            [sys.executable, "-c", code, "export", *arguments], capture_output=True, text=True, check=False,
            env=os.environ | {"PYTHONPATH": path},
        )  # fmt: skip

    assert "Export classes of a decomposable DiT" in run("--help").stdout
    assert "--from-diffusers" in run("kind", "--help").stdout
    refused = run("kind", "--classes", "tiger", "--target", "onnx")
    assert refused.returncode == 1
    assert "unknown class 'tiger'" in refused.stderr
