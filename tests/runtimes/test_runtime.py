"""One protocol over three runtimes: the same programs, the same numbers, the same refusals."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kind_core.errors import BundleError, TargetError
from kind_core.noise import start_noise
from kind_runtimes.bundle import Bundle
from kind_runtimes.engine_rows import ENGINES
from kind_runtimes.engines.runtime import Program, choose_runtime, open_program
from kind_runtimes.generator import Generator, open_generator
from small_bundles import SHAPE, SUFFIXES, eager_latents, program_specs, psnr_db

# those that run a lowered program; a diffusers folder is tested where it is written, LiteRT where its extra is there
LOWERED = tuple(name for name in ENGINES if name not in ("diffusers", "litert"))
PACKAGES = {"onnx": "onnxruntime", "executorch": "executorch", "coreml": "coremltools"}
THRESHOLD_DB = {"onnx": 60, "executorch": 60, "coreml": 35}
OTHER_SYSTEMS = pytest.mark.skipif(sys.platform == "darwin", reason="Core ML itself runs here")


@pytest.fixture(scope="module")
def generators(small_bundle: Bundle) -> dict[str, Generator]:
    return {name: open_generator(small_bundle.path, small_bundle.manifest, name) for name in LOWERED}


@pytest.fixture
def step_inputs() -> dict[str, np.ndarray]:
    return {
        "latents": start_noise(1, SHAPE),
        "history": start_noise(2, SHAPE),
        "step_index": np.array([2], np.int32),
        "class_index": np.array([1], np.int32),
        "guidance": np.array([1.5], np.float32),
    }


def open_step(bundle: Bundle, runtime: str, file: Path) -> Program:
    return open_program(runtime, file, bundle.manifest.target(runtime).programs["step"])


def test_every_runtime_has_a_suffix_and_a_package() -> None:
    assert set(LOWERED) == set(SUFFIXES) == set(PACKAGES)


@pytest.mark.parametrize("runtime", LOWERED)
@pytest.mark.parametrize(("class_index", "guidance"), [(0, 1.5), (1, 0.5)])
def test_latents_are_those_of_the_eager_module(
    generators: dict[str, Generator], runtime: str, class_index: int, guidance: float
) -> None:
    latents = generators[runtime].latents(class_index, seed=7, guidance=guidance)
    assert (latents.shape, latents.dtype) == (SHAPE, np.float32)
    expected = eager_latents(start_noise(7, SHAPE), class_index, guidance)
    assert psnr_db(latents, expected) > THRESHOLD_DB[runtime]


@pytest.mark.parametrize("runtime", ["executorch", "coreml"])
def test_same_seed_same_picture_between_runtimes(generators: dict[str, Generator], runtime: str) -> None:
    expected = generators["onnx"].picture(0, seed=7)
    picture = generators[runtime].picture(0, seed=7)
    assert (picture.shape, picture.dtype) == ((*SHAPE[2:], 3), np.uint8)
    assert psnr_db(picture, expected) > 35


@pytest.mark.parametrize("runtime", LOWERED)
def test_twice_the_same_is_bit_identical(generators: dict[str, Generator], runtime: str) -> None:
    generator = generators[runtime]
    first = generator.latents(1, seed=3)
    generator.latents(0, seed=4)  # nothing stays from another picture
    np.testing.assert_array_equal(generator.latents(1, seed=3), first)


@pytest.mark.parametrize("runtime", LOWERED)
@pytest.mark.parametrize("name", ["latents", "history", "step_index", "class_index", "guidance"])
def test_every_input_matters(
    generators: dict[str, Generator], step_inputs: dict[str, np.ndarray], runtime: str, name: str
) -> None:
    step = generators[runtime].step
    changed = {**step_inputs, name: step_inputs[name] - step_inputs[name].dtype.type(1)}
    assert np.abs(step(changed)["next_latents"] - step(step_inputs)["next_latents"]).max() > 1e-2


@pytest.mark.parametrize("runtime", LOWERED)
def test_outputs_are_the_callers_own(
    generators: dict[str, Generator], step_inputs: dict[str, np.ndarray], runtime: str
) -> None:
    step = generators[runtime].step
    first = step(step_inputs)
    kept = {name: array.copy() for name, array in first.items()}
    step({**step_inputs, "guidance": np.array([9], np.float32)})
    for name, array in kept.items():
        np.testing.assert_array_equal(first[name], array)


@pytest.mark.parametrize("runtime", LOWERED)
def test_wrong_inputs_are_refused(
    generators: dict[str, Generator], step_inputs: dict[str, np.ndarray], runtime: str
) -> None:
    step = generators[runtime].step
    wrong = [
        ({k: v for k, v in step_inputs.items() if k != "history"}, "was given"),
        ({**step_inputs, "timestep": np.zeros(1)}, "timestep"),
        ({**step_inputs, "latents": step_inputs["latents"][:, :, 1:]}, r"latents float32 \(1, 3, 16, 16\)"),
        ({**step_inputs, "step_index": np.array([0])}, "step_index int32"),
        ({**step_inputs, "guidance": np.array(1, np.float32)}, r"guidance float32 \(1,\)"),
    ]
    for inputs, message in wrong:
        with pytest.raises(ValueError, match=message):
            step(inputs)


def test_the_engine_is_named(generators: dict[str, Generator]) -> None:
    assert generators["onnx"].step.engine.startswith("onnxruntime 1.")
    assert "XNNPACK" in generators["executorch"].step.engine


@OTHER_SYSTEMS
def test_evaluation_is_not_called_core_ml(generators: dict[str, Generator]) -> None:
    engine = generators["coreml"].step.engine
    assert "op-by-op evaluation" in engine
    assert "no Apple hardware" in engine


@pytest.mark.parametrize("runtime", LOWERED)
def test_a_missing_package_is_named_with_how_to_install_it(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    package = PACKAGES[runtime]
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, f"kind_runtimes.engines.{runtime}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    program = small_bundle.manifest.target(runtime).programs["step"]
    with pytest.raises(TargetError, match=package) as caught:
        open_program(runtime, small_bundle.path / program.file, program)
    assert f"pip install {package}" in caught.value.hint


def test_another_missing_package_is_not_blamed_on_the_runtime(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "kind_runtimes.engines.onnx", raising=False)
    monkeypatch.setitem(sys.modules, "numpy", None)
    program = small_bundle.manifest.target("onnx").programs["step"]
    with pytest.raises(ModuleNotFoundError, match="numpy"):
        open_program("onnx", small_bundle.path / program.file, program)


def test_an_operator_that_executorch_does_not_have_is_no_library_to_load(copy_bundle: Callable[[], Path]) -> None:
    folder = copy_bundle()
    file = folder / "executorch" / "step.pte"
    content = file.read_bytes()
    assert b"aten::index_select" in content
    file.write_bytes(content.replace(b"aten::index_select", b"evil::index_select"))
    with pytest.raises(BundleError, match="ExecuTorch cannot load") as caught:
        open_program("executorch", file, program_specs("executorch")["step"])
    assert "\n" not in caught.value.message


def test_an_unknown_runtime_is_told_the_known_ones(small_bundle: Bundle) -> None:
    program = small_bundle.manifest.target("onnx").programs["step"]
    with pytest.raises(TargetError, match="'tflite', expected one of onnx, executorch, coreml"):
        open_program("tflite", small_bundle.path, program)


@OTHER_SYSTEMS
@pytest.mark.parametrize(
    ("targets", "missing", "chosen"),
    [
        (["coreml", "executorch", "onnx"], [], "onnx"),
        (["coreml", "executorch"], [], "executorch"),
        (["coreml"], [], "coreml"),
        (["coreml", "executorch", "onnx"], ["onnxruntime"], "executorch"),
        (["onnx"], ["onnxruntime"], "onnx"),
    ],
)
def test_the_best_runtime_that_is_installed_is_chosen(
    monkeypatch: pytest.MonkeyPatch, targets: list[str], missing: list[str], chosen: str
) -> None:
    for package in missing:
        monkeypatch.setitem(sys.modules, package, None)
    assert choose_runtime(targets) == chosen


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize("runtime", ["onnx", "executorch"])
@pytest.mark.parametrize(
    "damage",
    [truncate, lambda data: b"", lambda data: b"what is this\n" * 100, lambda data: bytes(64) + data[64:]],
    ids=["truncated", "empty", "another file", "without its head"],
)
def test_a_file_that_is_no_program_is_refused_in_one_line(
    small_bundle: Bundle,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    runtime: str,
    damage: Callable[[bytes], bytes],
) -> None:
    program = small_bundle.manifest.target(runtime).programs["step"]
    file = tmp_path / f"damaged{SUFFIXES[runtime]}"
    file.write_bytes(damage((small_bundle.path / program.file).read_bytes()))
    with pytest.raises(BundleError, match=str(file)) as caught:
        open_step(small_bundle, runtime, file)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("runtime", ["onnx", "executorch"])
def test_a_missing_file_is_named(small_bundle: Bundle, tmp_path: Path, runtime: str) -> None:
    with pytest.raises(BundleError, match="nothing"):
        open_step(small_bundle, runtime, tmp_path / "nothing")


def test_a_runtime_the_bundle_lacks_is_refused(small_bundle: Bundle) -> None:
    targets = {"onnx": small_bundle.manifest.target("onnx")}
    with pytest.raises(TargetError, match="no coreml programs, only onnx"):
        open_generator(small_bundle.path, replace(small_bundle.manifest, targets=targets), "coreml")
