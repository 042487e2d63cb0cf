"""`kind-run inspect`: bundles, programs of every format found alone, packs, and what is none of these."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import save_file

from kind_core.classes import ClassInfo
from kind_core.errors import BundleError
from kind_core.samplers import Sampling
from kind_export.targets.target import Lowering, TargetOptions, load_target
from kind_runtimes.about import About, parse_about
from kind_runtimes.bundle import Bundle
from kind_runtimes.cli import inspect
from kind_runtimes.engines.runtime import describe_file
from kind_runtimes.inspection import inspect_path
from kind_runtimes.packs import PACK_TENSORS, encode_metadata
from small_bundles import CLASSES, DTYPES, PRECISIONS, SUFFIXES, SmallStep, program_specs

ABOUT = About(
    classes=tuple(ClassInfo(id=class_id, names=names) for class_id, names in CLASSES),
    sampling=Sampling(sampler="dpmpp", steps=4, guidance_scale=1.5, initial_noise_scale=2.0),
    author="A. Uthor", licence="mit",
)  # fmt: skip


def lower(target: str, file: Path, about: About | None = ABOUT) -> Path:
    """A small step that says what it is."""
    spec = program_specs(target)["step"]
    example = tuple(torch.zeros(s.shape, dtype=DTYPES[s.dtype]) for s in spec.inputs)
    lowering = Lowering(
        name="step", module=SmallStep().eval(), example=example, inputs=spec.inputs, outputs=spec.outputs
    )
    options = TargetOptions(precision=PRECISIONS[target], about=about)  # type: ignore[arg-type]
    load_target(target).lower(lowering, file, options)
    return file


@pytest.fixture(scope="module", params=SUFFIXES)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    target = str(request.param)
    return target, lower(target, tmp_path_factory.mktemp(target) / f"step{SUFFIXES[target]}")


def run(*arguments: str) -> str:
    done = CliRunner().invoke(inspect, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_program_alone_explains_itself(program: tuple[str, Path]) -> None:
    target, file = program
    spec = program_specs(target)["step"]
    expected = ABOUT.describe("step", spec.inputs, spec.outputs)
    found = describe_file(target, file)
    assert {name: text for name, text in found.texts.items() if name.startswith("kind.")} == expected
    assert [one.shape for one in found.inputs] == [one.shape for one in spec.inputs]
    assert [one.dtype for one in found.outputs] == [one.dtype for one in spec.outputs]
    printed = json.loads(run(str(file), "--json"))
    assert {name: printed[name] for name in parse_about(expected)} == parse_about(expected)
    text = run(str(file))
    for words in ("giant panda, panda bear", "step(latents, history, step_index, class_index, guidance)", "A. Uthor"):
        assert words in text


def test_the_same_program_gives_the_same_bytes(program: tuple[str, Path], tmp_path: Path) -> None:
    target, file = program
    again = lower(target, tmp_path / file.name)
    files = [path.relative_to(file) for path in file.rglob("*") if path.is_file()] if file.is_dir() else [Path()]
    assert files
    assert [(file / name).read_bytes() for name in files] == [(again / name).read_bytes() for name in files]


def test_a_core_ml_package_is_described_for_xcode(tmp_path: Path) -> None:
    from kind_runtimes.coreml.package import CoreMLPackage

    description = CoreMLPackage.open(lower("coreml", tmp_path / "step.mlpackage")).spec.description
    metadata = description.metadata
    assert (metadata.author, metadata.license) == ("A. Uthor", "mit")
    assert metadata.shortDescription.startswith("latents = start noise * 2")
    assert json.loads(metadata.userDefined["kind.classes"])[0]["names"] == ["giant panda", "panda bear"]
    assert all(one.shortDescription for one in (*description.input, *description.output))


def test_a_file_of_another_tool_shows_what_it_takes(tmp_path: Path) -> None:
    file = lower("onnx", tmp_path / "other.onnx", about=None)
    text = run(str(file))
    assert "does not describe itself" in text
    assert "class_index  1  int32" in text


def test_a_bundle_shows_its_manifest(small_bundle: Bundle, tmp_path: Path) -> None:
    printed = json.loads(run(str(small_bundle.path), "--json"))
    assert (printed["kind"], printed["steps"], printed["note"]) == ("bundle", 4, "")
    assert set(printed["targets"]) == set(SUFFIXES)
    assert "n02509815  lesser panda, red panda" in run(str(small_bundle.path))
    changed = tmp_path / "changed.kind"
    shutil.copytree(small_bundle.path, changed)
    (changed / "onnx" / "step.onnx").write_bytes(b"damaged")
    assert "not as it was verified" in run(str(changed))


def test_a_pack_names_its_class_and_base(tmp_path: Path) -> None:
    file = tmp_path / "panda.pack"
    info = ClassInfo(id="n02510455", names=("giant panda",))
    tensors: dict[str, Any] = {name: np.ones((1, 2), np.float16) for name in PACK_TENSORS}
    save_file(tensors, file, metadata=encode_metadata(info, "ab" * 32))
    found = inspect_path(file)
    assert found.facts["base"] == "ab" * 32
    assert "giant panda" in run(str(file))


@pytest.mark.parametrize("name", ["step.onnx", "step.pte", "step.mlpackage", "panda.pack", "panda.txt", "missing.kind"])
def test_what_is_none_of_these_is_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if name != "missing.kind":
        file.write_bytes(b"no program")
    with pytest.raises(BundleError):
        inspect_path(file)
    done = CliRunner().invoke(inspect, [str(file)])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")


def test_classes_of_a_base_are_not_in_its_programs(tmp_path: Path) -> None:
    file = lower("onnx", tmp_path / "base.onnx", about=replace(ABOUT, classes=()))
    assert json.loads(run(str(file), "--json"))["classes"] == []
