"""Escape sequences in names, labels, paths, options and engine texts reach no terminal, and brackets are no markup."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import kind_bench.cli
import kind_export.cli
import kind_runtimes.cli
import kind_train.cli
from kind_core.checkpoint import save_checkpoint
from kind_core.classes import ClassInfo
from kind_core.config import Provenance
from small_bundles import lower_programs, write_manifest
from tiny import tiny_config, tiny_model, tiny_model_config
from tiny_autoencoder import save_autoencoder

# a colour, a title, the clipboard, a cursor that goes up a line, a backspace, 8-bit CSI, turned writing, a new line
EVIL = "ev\x1b[31mil\x1b]0;t\x07\x1b]52;c;QQ==\x07\x1b[1A\x08\x9b2J\u202eok\u2028\x7f\nbundle  /tmp/mine\r[red]x[/nope]"
PROGRAMS = Path(kind_bench.cli.__file__).parents[2]
GROUPS = {
    "kind-export": kind_export.cli.main,
    "kind-train": kind_train.cli.main,
    "kind-bench": kind_bench.cli.main,
    "kind-run": kind_runtimes.cli.main,
}
UNCHECKED = {"click.echo", "click.secho", "print", "Console", "TextColumn", "Text.from_markup"}
_OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def call(command: str, *arguments: object) -> Result:
    return CliRunner().invoke(GROUPS[command], list(map(str, arguments)))


def require_plain(result: Result) -> str:
    """Both streams, which hold nothing that a terminal obeys and no line that a name has begun."""
    text = result.stdout + result.stderr
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert not _OBEYED.search(text), repr(_OBEYED.search(text))
    assert not re.search(r"^ *bundle  /tmp/mine", text, re.MULTILINE)
    return text


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, a name and a provenance that hold everything."""
    path = tmp_path_factory.mktemp("evil") / "checkpoint"
    config = tiny_model_config(tiny_config(num_classes=2), noise_schedule="squaredcos_cap_v2", steps=2)
    classes = (ClassInfo(id="c0", names=(EVIL,)), ClassInfo(id="c1", names=("mug [blue]",)))
    provenance = Provenance(data=EVIL, training=EVIL, licence=EVIL, author=EVIL)
    config = replace(config, classes=classes, provenance=provenance)
    save_checkpoint(path, config, tiny_model(config.dit))
    return path


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Path:
    """Its export, and what the export printed."""
    out = checkpoint.parent / "out.kind"
    done = call("kind-export", "--checkpoint", checkpoint, "--classes", "c0,c1", "--target", "onnx", "-o", out)
    (checkpoint.parent / "printed.json").write_text(json.dumps([done.exit_code, require_plain(done)]))
    return out


def test_an_export_shows_names_as_they_are(bundle: Path) -> None:
    code, text = json.loads((bundle.parent / "printed.json").read_text())
    assert code == 0
    assert "mug [blue]" in text
    assert r"ev\u001b[31mil" in text
    assert "[red]x[/nope]" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("kind-export", "classes", "--checkpoint", "CHECKPOINT"),
        ("kind-export", "classes", "--checkpoint", "CHECKPOINT", "--json"),
        ("kind-export", "report", "BUNDLE", "--json"),
        ("kind-export", "--checkpoint", "CHECKPOINT", "--classes", EVIL + "?", "--target", "onnx", "-o", "OUT"),
        ("kind-export", "--checkpoint", "CHECKPOINT", "--classes", "c0", "--target", EVIL, "-o", "OUT"),
        ("kind-export", "--checkpoint", EVIL, "--classes", "c0"),
        ("kind-export", "--checkpoint", "CHECKPOINT", "--classes", "c0", "--device", EVIL, "-o", "OUT"),
        ("kind-export", "--classes", "c0", "--steps", EVIL),
        ("kind-export", f"--{EVIL}"),
        ("kind-export", EVIL),
        ("kind-run", "BUNDLE", "--class", "c0", "-o", "PICTURE"),
        ("kind-run", "BUNDLE", "--class", "c0", "-o", "PICTURE", "--json"),
        ("kind-run", "BUNDLE", "--class", EVIL + "?"),
        ("kind-run", "BUNDLE"),
        ("kind-run", "BUNDLE", "--class", "c0", "--runtime", EVIL),
        ("kind-run", "BUNDLE", "--seed", EVIL),
        ("kind-run", "inspect", "BUNDLE"),
        ("kind-run", "inspect", "BUNDLE", "--json"),
        ("kind-run", "inspect", EVIL),
        ("kind-run", EVIL),
        ("kind-bench", "run", "BUNDLE", "--threads", EVIL),
        ("kind-bench", "run", "BUNDLE", "--provider", EVIL),
        ("kind-bench", "lint", "BUNDLE"),
        ("kind-bench", "compare", "BUNDLE/report.json", "BUNDLE/report.json"),
        ("kind-bench", "compare", EVIL, EVIL),
        ("kind-bench", "devices", EVIL),
        ("kind-bench", EVIL),
        ("kind-train", "convert", "CHECKPOINT", "OUT", "--sampler", EVIL),
        ("kind-train", "convert", "CHECKPOINT", "OUT/" + EVIL.replace("/", "|")),
        ("kind-train", "add", "CHECKPOINT", "CHECKPOINT", "--classes", EVIL),
        ("kind-train", "fit", "--data", EVIL, "--output", "OUT"),
        ("kind-train", "evaluate", "--bundle", "BUNDLE", "--data", EVIL, "--val-data", EVIL),
        ("kind-train", EVIL),
    ],
    ids=lambda arguments: f"{arguments[0]} {list(arguments).index(next(reversed(arguments)))}",
)
def test_no_command_prints_what_a_terminal_obeys(
    arguments: tuple[str, ...], checkpoint: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"CHECKPOINT": checkpoint, "BUNDLE": bundle, "OUT": tmp_path / "out", "PICTURE": tmp_path / "p.png"}
    given = [re.sub(r"^(CHECKPOINT|BUNDLE|OUT|PICTURE)", lambda m: str(places[m[0]]), one) for one in arguments]
    done = call(*given)
    require_plain(done)
    if "--json" in arguments:
        json.loads(done.stdout)


def test_results_of_a_phone_are_shown_as_text(tmp_path: Path) -> None:
    lower_programs(tmp_path / "small.kind", ["onnx"])
    write_manifest(tmp_path / "small.kind", ["onnx"], name=EVIL)
    from kind_core.files.hashing import hash_file

    case = {"runtime": "onnx", "engine": EVIL, "step_ms": {"samples": [1.0, 2.0, 3.0, 4.0]}}
    case["profile"] = {"tool": EVIL, "run_ms": 1.0, "ops": [{"op_type": EVIL, "backend": EVIL, "count": 1, "ms": 1.0}]}
    sha256 = hash_file(tmp_path / "small.kind" / "manifest.json")
    results = {
        "format_version": 1, "kind": "measured", "made_by": EVIL, "bundle": {"name": EVIL, "manifest_sha256": sha256},
        "machine": {"system": EVIL, "processor": EVIL, "thermal_state": EVIL}, "cases": [case],
    }  # fmt: skip
    (tmp_path / "phone.json").write_text(json.dumps(results))
    done = call("kind-bench", "import", tmp_path / "phone.json", "--bundle", tmp_path / "small.kind")
    assert done.exit_code == 0, done.stderr
    assert r"ev\u001b[31mil" in require_plain(done)


def test_what_an_engine_says_of_a_file_is_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    node = onnx.helper.make_node(EVIL, ["x"], ["y"], name=EVIL)
    values = [onnx.helper.make_tensor_value_info(name, 1, [4]) for name in "xy"]
    graph = onnx.helper.make_graph([node], EVIL, values[:1], values[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "evil.onnx").write_bytes(model.SerializeToString())
    done = call("kind-run", "inspect", tmp_path / "evil.onnx")
    assert "onnxruntime cannot load" in require_plain(done)
    assert capfd.readouterr() == ("", "")  # nor does it write past Python


def test_photos_and_their_classes_are_named_as_they_are(tmp_path: Path) -> None:
    name = EVIL.replace("/", "|")
    for folder in (name, "mug [blue]"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 255, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / folder / f"{i}.png")
    (tmp_path / "photos" / "mug [blue]" / f"bad {name}.png").write_bytes(b"no picture")
    save_autoencoder(tmp_path / "vae", "AutoencoderTiny")
    arguments = ("--autoencoder", tmp_path / "vae", "--size", 16, "--device", "cpu", "--output", tmp_path / "out")
    done = call("kind-train", "cache", "--data", tmp_path / "photos", *arguments)
    assert done.exit_code == 0
    text = require_plain(done)
    assert r"mug [blue]/bad ev\u001b[31mil" in text


def test_letters_that_an_encoding_lacks_are_no_error(checkpoint: Path) -> None:
    arguments = ["--checkpoint", str(checkpoint), "--classes", "\N{CJK UNIFIED IDEOGRAPH-732B}", "--target", "onnx"]
    done = CliRunner(charset="latin-1").invoke(kind_export.cli.main, arguments)
    assert done.exit_code == 1
    assert r"unknown class '\u732b'" in done.stderr


def test_nothing_is_printed_past_the_console() -> None:
    """`click.echo`, `print` and rich's own console show text unchecked."""
    files = [file for place in ("*/kind_*/**/*.py", "kind_core/**/*.py") for file in PROGRAMS.glob(place)]
    assert len(files) > 200
    for file in files:
        if file.parts[-2:] not in (("console", "__init__.py"), ("console", "tables.py")):
            calls = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))
            called = {ast.unparse(node.func) for node in calls}
            assert not called & {"click.echo", "click.secho", "print", "Console", "TextColumn", "Text.from_markup"}, (
                file
            )
