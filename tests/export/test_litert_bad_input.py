"""What LiteRT cannot do is one line: a precision, a unit, a file too new or damaged, the extra that is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from litert_bundles import Model, make_bundle, make_model, needs_litert

from kind_core.errors import BundleError, TargetError
from kind_export.cli import main
from kind_runtimes.bundle import Bundle
from kind_runtimes.engines.runtime import EngineOptions, open_program
from kind_runtimes.generator import open_generator
from kind_runtimes.manifest import ProgramSpec


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return make_model(tmp_path_factory)


@pytest.fixture(scope="module")
def litert(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(model, tmp_path_factory)()


def test_without_the_extra_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "kind_export.request.find_spec", lambda name: None if name == "ai_edge_litert" else find_spec(name)
    )
    done = CliRunner().invoke(main, ["--classes", "panda", "--target", "litert", "-o", str(tmp_path / "x.kind")])
    assert done.exit_code != 0
    assert "target 'litert' needs the package ai_edge_litert, which is not installed" in done.output
    assert "pip install 'kind-diffusion[litert]'" in done.output
    assert not list(tmp_path.iterdir())


def test_all_does_not_mean_it() -> None:
    from kind_export.request import TARGETS, parse_targets

    assert parse_targets(["all"]) == list(TARGETS) == ["coreml", "onnx", "executorch"]


@needs_litert
def test_a_precision_that_it_lacks_is_one_line(model: Model, tmp_path: Path) -> None:
    asked = ["--classes", model.names[0], "--checkpoint", str(model.path), "--steps", "4", "--target", "litert"]
    done = CliRunner().invoke(main, [*asked, "--precision", "int4", "-o", str(tmp_path / "x.kind")])
    assert done.exit_code != 0
    assert "target 'litert' has no precision 'int4', expected one of fp32, fp16, int8" in done.output
    assert not list(tmp_path.iterdir())


def _altered(bundle: Bundle, tmp_path: Path, change: Callable[[bytes], bytes]) -> tuple[Path, ProgramSpec]:
    file = tmp_path / "step.tflite"
    file.write_bytes(change((bundle.path / "litert/step.tflite").read_bytes()))
    return file, replace(bundle.manifest.targets["litert"].programs["step"], file=file.name)


def _of_a_newer_version(content: bytes) -> bytes:
    """Operators of a version that no runtime of today has."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    from kind_runtimes.engines.litert import IDENTIFIER

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for code in model.operatorCodes:
        code.version = 99
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


@needs_litert
def test_a_runtime_too_old_for_a_file_says_so_in_one_line(litert: Bundle, tmp_path: Path) -> None:
    file, spec = _altered(litert, tmp_path, _of_a_newer_version)
    with pytest.raises(BundleError, match=r"LiteRT [\d.]+ cannot load .*version '?99") as caught:
        open_program("litert", file, spec)
    assert "\n" not in caught.value.message
    assert "newer than this runtime" in (caught.value.hint or "")


@needs_litert
@pytest.mark.parametrize(
    "change",
    [lambda c: c[:4] + b"TFL9" + c[8:], lambda c: c[: len(c) // 2], lambda c: b""],
    ids=["other", "half", "no"],
)
def test_a_damaged_file_is_one_line(litert: Bundle, tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    file, spec = _altered(litert, tmp_path, change)
    with pytest.raises(BundleError, match=r"step\.tflite") as caught:
        open_program("litert", file, spec)
    assert "\n" not in caught.value.message


@needs_litert
def test_a_unit_that_is_not_there_is_one_line(litert: Bundle) -> None:
    with pytest.raises(TargetError, match="LiteRT has no unit 'TPU', only CPU, GPU, NPU"):
        open_generator(litert.path, litert.manifest, "litert", EngineOptions(provider="TPU"))
    with pytest.raises(TargetError, match=r"cannot start its NPU here|leaves operators of .* off its NPU"):
        open_generator(litert.path, litert.manifest, "litert", EngineOptions(provider="NPU"))
