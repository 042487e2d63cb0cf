"""`kind-run` as a user meets it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from kind_runtimes.bundle import Bundle
from kind_runtimes.cli import main
from kind_runtimes.draw import RunRequest, run_bundle

HEAVY = {"torch", "diffusers", "coremltools", "onnxruntime", "executorch", "numpy", "PIL", "rich"}
OPTIONS = [
    f"--{name}" for name in ("class", "seed", "count", "runtime", "guidance", "columns", "output", "force", "json")
]


@pytest.fixture
def kind_run(small_bundle: Bundle) -> Callable[..., Result]:
    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(small_bundle.path), *map(str, arguments)])

    return run


def test_the_command_of_the_readme_draws_a_picture(kind_run: Callable[..., Result], tmp_path: Path) -> None:
    output = tmp_path / "panda.png"
    result = kind_run("--class", "panda", "--seed", 7, "--count", 4, "-o", output)
    assert result.exit_code == 0
    with Image.open(output) as image:
        assert (image.format, image.size) == ("PNG", (34, 34))
    lines = result.stdout.splitlines()
    assert lines[0] == "class    giant panda (n02510455), guidance 1.5"
    assert lines[1] == "seeds    7 to 10"
    assert lines[2].startswith("runtime  onnxruntime 1.")
    assert lines[3] == f"picture  {output}"


def test_results_and_progress_go_apart(kind_run: Callable[..., Result], tmp_path: Path) -> None:
    result = kind_run("--class", "panda", "--count", 2, "-o", tmp_path / "a.png")
    assert result.stderr.splitlines() == [
        "opening the onnx programs",
        "picture 1 of 2",
        "picture 2 of 2",
        "'panda' is taken as 'giant panda', not 'lesser panda'",
    ]
    assert "picture 1 of 2" not in result.stdout


def test_json_is_one_document_of_the_result(kind_run: Callable[..., Result], tmp_path: Path) -> None:
    result = kind_run("--class", "red panda", "--seed", 2**63, "--guidance", 2, "-o", tmp_path / "a.png", "--json")
    fields = json.loads(result.stdout)
    assert fields.pop("seconds") >= 0
    assert fields.pop("engine").startswith("onnxruntime")
    assert fields == {
        "path": str(tmp_path / "a.png"),
        "class": {"id": "n02509815", "name": "lesser panda"},
        "seeds": [2**63],
        "guidance": 2.0,
        "runtime": "onnx",
    }


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML itself runs here")
def test_the_evaluator_is_named_plainly(kind_run: Callable[..., Result], tmp_path: Path) -> None:
    result = kind_run("--class", "panda", "--runtime", "coreml", "-o", tmp_path / "a.png")
    assert "op-by-op evaluation of the saved Core ML package (no Apple hardware)" in result.stdout


def test_every_option_reaches_the_run(small_bundle: Bundle, kind_run: Callable[..., Result], tmp_path: Path) -> None:
    kind_run(
        "--class", "panda", "--seed", 3, "--count", 3, "--columns", 3, "--guidance", 0.5, "--runtime", "executorch",
        "-o", tmp_path / "cli.png",
    )  # fmt: skip
    request = RunRequest(
        bundle=small_bundle.path, class_name="panda", seed=3, count=3, columns=3, guidance=0.5, runtime="executorch",
        output=tmp_path / "library.png",
    )  # fmt: skip
    run_bundle(request)
    assert (tmp_path / "cli.png").read_bytes() == (tmp_path / "library.png").read_bytes()


def test_an_error_is_one_line_and_a_hint(kind_run: Callable[..., Result], tmp_path: Path) -> None:
    result = kind_run("--class", "koala", "-o", tmp_path / "a.png")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "error: unknown class 'koala'",
        "hint: the bundle holds giant panda, lesser panda",
    ]


def test_force_replaces_the_image(kind_run: Callable[..., Result], tmp_path: Path) -> None:
    output = tmp_path / "a.png"
    assert kind_run("--class", "panda", "-o", output).exit_code == 0
    before = output.read_bytes()
    refused = kind_run("--class", "panda", "--seed", "3", "-o", output)
    assert (refused.exit_code, output.read_bytes()) == (1, before)
    assert "--force" in refused.stderr
    assert kind_run("--class", "panda", "--seed", "3", "-o", output, "--force").exit_code == 0
    assert output.read_bytes() != before


@pytest.mark.parametrize("arguments", [["--seed", "seven"], ["--frobnicate"], ["--guidance", "much"]])
def test_wrong_usage_exits_with_2(kind_run: Callable[..., Result], arguments: list[str]) -> None:
    assert kind_run(*arguments).exit_code == 2


def test_without_a_bundle_the_usage_is_shown() -> None:
    result = CliRunner().invoke(main, [])
    assert result.exit_code == 2
    assert "BUNDLE" in result.stderr


def test_help_names_every_option_and_has_an_example() -> None:
    text = CliRunner().invoke(main, ["-h"]).stdout
    assert text == CliRunner().invoke(main, ["--help"]).stdout
    assert [option for option in OPTIONS if option not in text] == []
    assert "kind-run panda.kind --class panda --seed 7 --count 4 --scale 8 -o panda.png" in text


def test_help_lists_the_commands() -> None:
    text = CliRunner().invoke(main, ["--help"]).stdout
    commands = text.partition("Commands:")[2].split()
    assert commands[0] == "draw"
    assert "serve" in commands
    assert text.startswith("Usage: main [OPTIONS] BUNDLE\n")


@pytest.mark.parametrize("order", [("draw", "{}", "--seed", "3"), ("--seed", "3", "{}"), ("{}", "--seed", "3")])
def test_drawing_is_what_is_meant_where_no_command_is_named(
    small_bundle: Bundle, tmp_path: Path, order: tuple[str, ...]
) -> None:
    arguments = [word.format(small_bundle.path) for word in order]
    result = CliRunner().invoke(main, [*arguments, "--class", "panda", "-o", str(tmp_path / "a.png"), "--json"])
    assert json.loads(result.stdout)["seeds"] == [3]


def test_a_bundle_that_is_called_like_a_command_is_drawn_by_its_path(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small_bundle.path, tmp_path / "serve")
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["./serve", "--class", "panda"]).exit_code == 0


def test_help_loads_nothing_heavy() -> None:
    program = """
import sys
from kind_runtimes.cli import main
main(["--help"], standalone_mode=False)
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "kind_runtimes.cli" in loaded
    assert loaded & HEAVY == set()


def test_the_packages_names_are_there_and_load_lazily() -> None:
    program = """
import sys
import kind_runtimes
assert "kind_runtimes.bundle" not in sys.modules
bundle, generator = kind_runtimes.open_bundle, kind_runtimes.open_generator
assert bundle.__module__ == "kind_runtimes.bundle" and generator.__module__ == "kind_runtimes.generator"
assert not {"torch", "onnxruntime", "executorch", "coremltools"} & set(sys.modules)
assert all(hasattr(kind_runtimes, name) for name in kind_runtimes.__all__)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_name_the_package_lacks_is_an_attribute_error() -> None:
    import kind_runtimes

    with pytest.raises(AttributeError, match="No kind_runtimes attribute nothing"):
        kind_runtimes.nothing  # noqa: B018
