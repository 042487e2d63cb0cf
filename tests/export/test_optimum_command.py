"""`optimum-cli export kind` has the options of kind-export and hands them on as they were given."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from kind_export import cli, optimum_registration

ROOT = Path(__file__).parents[2]
HAS_OPTIMUM = find_spec("optimum") is not None


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


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an installed optimum, of which only the metadata is there, looks for the command."""
    metadata = tmp_path / "optimum-2.3.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.4\nName: optimum\nVersion: 2.3.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "optimum" / "commands" / "register" / "register_kind.py"


def register(*options: str) -> Result:
    return CliRunner().invoke(cli.main, ["register-optimum", *options])


def test_help_lists_nothing_that_is_refused(command: Any) -> None:
    """Its examples are taken as they stand, and it names no command of kind-export, which it has not."""
    parser = ArgumentParser("optimum-cli export kind")
    command.parse_args(parser)
    text = parser.description or ""
    examples = [line.strip() for line in text.splitlines() if line.strip().startswith("optimum-cli ")]
    assert len(examples) > 3
    for example in examples:
        cli.main.make_context("kind-export", parse(command, *shlex.split(example)[3:]))
    assert not any(re.search(rf"kind {name}\b", text) for name in cli.main.commands)
    assert "--precision fp32|fp16|int8" in " ".join(parser.format_help().split())


def test_what_is_registered_names_command_and_parent(command: Any, place: Path) -> None:
    done = register()
    assert (done.exit_code, done.stdout) == (0, f"written  {place}\n"), done.output
    namespace: dict[str, Any] = {}
    exec(place.read_text(), namespace)
    assert namespace["REGISTER_COMMANDS"] == [(command, ExportCommand)]


def test_it_is_harmless_once_this_package_is_gone(command: Any, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    namespace: dict[str, Any] = {}
    exec(place.read_text(), namespace)
    assert namespace["REGISTER_COMMANDS"] == []


@pytest.mark.parametrize("neighbour", [None, "register_onnx.py"])
def test_it_is_removed_and_nothing_else(place: Path, neighbour: str | None) -> None:
    register()
    if neighbour is not None:
        (place.parent / neighbour).touch()
    (place.parent / "__pycache__").mkdir()
    (place.parent / "__pycache__" / "register_kind.cpython-311.pyc").touch()
    assert register("--remove").exit_code == 0
    assert not place.exists()
    assert place.parent.exists() == (neighbour is not None)
    assert register("--remove").exit_code == 0


def test_without_optimum_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(optimum_registration, "distribution", missing)
    refused = register()
    assert refused.exit_code == 1
    assert refused.stderr == "error: optimum is not installed\nhint: pip install 'kind-diffusion[optimum]'\n"


def test_the_wheel_claims_no_name_but_its_own() -> None:
    import tomllib

    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel) == {"packages"}
    assert all(Path(package).name.startswith("kind_") for package in wheel["packages"])


@pytest.mark.slow
@pytest.mark.skipif(not HAS_OPTIMUM, reason="pip install optimum==2.3.0 to run it in optimum itself")
def test_optimum_lists_and_runs_it(tmp_path: Path, place: Path) -> None:
    if not any((Path(folder) / place.relative_to(tmp_path)).exists() for folder in sys.path):  # it was registered
        register()

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
