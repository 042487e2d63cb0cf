"""The LiteRT target end to end: gates, names, precisions, unguided steps, packs, and what a GPU takes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from artifacts import Artifact, make_reference
from click.testing import CliRunner
from litert_bundles import make_bundle, make_model, needs_litert
from PIL import Image
from safetensors.numpy import load_file

from kind_bench.cli import main as bench
from kind_bench.counting import count_bundle, count_program
from kind_bench.lint import lint, lint_program
from kind_bench.linting import lint_bundle
from kind_core.closeness import psnr_db
from kind_core.precisions import PRECISIONS
from kind_export.compact.step import GraphStyle
from kind_export.targets.target import load_target
from kind_runtimes.bundle import Bundle
from kind_runtimes.cli import main as run
from kind_runtimes.engines.runtime import describe_file
from kind_runtimes.generator import open_generator
from kind_runtimes.packs import read_pack
from tiny import CLASSES

pytestmark = needs_litert
Export = Callable[..., Bundle]
_INT8 = ("--precision", "int8")
_HALF = ("--precision", "fp16")
_INTERVAL = ("--guidance-interval", "0.25,0.75")


@pytest.fixture(scope="module")
def litert(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """A bundle of two classes for options of the command line, made once."""
    return make_bundle(make_model(tmp_path_factory), tmp_path_factory)


@pytest.mark.parametrize("options", [(), _HALF, _INT8], ids=["fp32", "fp16", "int8"])
def test_a_program_passes_its_gates(litert: Export, options: tuple[str, ...]) -> None:
    manifest = litert(*options).manifest
    parity, precision = manifest.data["targets"]["litert"]["parity"], manifest.targets["litert"].precision
    assert parity["trajectory_psnr_db"] > parity["threshold_db"] == PRECISIONS[precision].trajectory_db
    assert parity["verified_by"].startswith("LiteRT ")
    assert ("rounded_by" in parity) == (precision == "fp16")
    assert manifest.data["targets"]["litert"]["engine"]["package"] == "ai_edge_litert"


def test_the_names_of_tensors_are_their_own(litert: Export) -> None:
    from kind_export.targets.litert.flatbuffer import parse

    # of one class the table of tailors is empty, and so are the buffers of all that is no constant
    bundle = litert(*_INT8, classes=(CLASSES[0].id,))
    (graph,) = parse((bundle.path / "litert/step.tflite").read_bytes()).subgraphs
    names = [tensor.name for tensor in graph.tensors]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("options", [(), _INTERVAL], ids=["one step", "two steps"])
def test_an_apps_loop_makes_the_golden_picture(litert: Export, options: tuple[str, ...]) -> None:
    bundle = litert(*options)
    golden = load_file(bundle.path / "golden.safetensors")
    generator = open_generator(bundle.path, bundle.manifest, "litert")
    for index in range(2):
        *_, latents = generator.trajectory(golden[f"{index}.noise"], index)
        assert psnr_db(golden[f"{index}.latents"][-1:], latents) > 60
    image = generator.picture(0, 0).astype(np.float32) / 255
    assert psnr_db(golden["0.image"][0].transpose(1, 2, 0), image) > 35


def test_steps_without_guidance_share_the_weights(litert: Export) -> None:
    plain, both = litert(), litert(*_INTERVAL)
    programs = both.manifest.targets["litert"].programs
    assert (programs["step"].function, programs["step_unguided"].function) == ("step", "step_unguided")
    assert "guidance" not in {spec.name for spec in programs["step_unguided"].inputs}
    sizes = [(one.path / "litert/step.tflite").stat().st_size for one in (plain, both)]
    assert sizes[0] < sizes[1] < 1.9 * sizes[0]  # of a model this small the graph is half of the file


@pytest.mark.parametrize("options", [(), _HALF, _INT8], ids=["fp32", "fp16", "int8"])
def test_every_node_is_free_of_what_a_gpu_cannot_take(litert: Export, options: tuple[str, ...]) -> None:
    bundle = litert(*options)
    for one in lint_bundle(bundle.path):
        assert (one.lint.num_free, one.lint.findings) == (one.lint.num_ops, ())
        assert {share.name for share in one.lint.backends} == {"GPU"}
    done = CliRunner().invoke(bench, ["lint", str(bundle.path)])
    work = count_bundle(bundle)["litert"]["step"]
    assert f"{len(work.ops)} of {len(work.ops)} nodes free of what LiteRT's GPU delegate cannot take" in done.output
    assert f"{len(work.ops)} of {len(work.ops)} nodes are free" in (bundle.path / "report.html").read_text()


def test_the_gates_of_a_step_without_guidance_are_all_that_a_gpu_leaves(litert: Export) -> None:
    """The converter drops the axis of a batch of one before the gates of a block, which keep it; the lint says so."""
    _, unguided, _ = lint_bundle(litert(*_INTERVAL).path)
    (finding,) = unguided.lint.findings
    assert (finding.op_type, finding.num_ops) == ("MUL", unguided.lint.num_ops - unguided.lint.num_free)
    assert "spread 2 axes over 3" in finding.reason
    assert finding.num_ops == 2


def test_no_number_has_64_bits(litert: Export) -> None:
    from ai_edge_litert import schema_py_generated as schema

    from kind_runtimes.engines.litert import read_model

    wide = {schema.TensorType.INT64, schema.TensorType.FLOAT64, schema.TensorType.UINT64}
    for options in ((), _HALF, _INT8):
        for file in (litert(*options).path / "litert").iterdir():
            kinds = Counter(tensor.type for graph in read_model(file).subgraphs for tensor in graph.tensors)
            assert not wide & set(kinds), file


def test_a_file_holds_nothing_of_this_machine_and_explains_itself(litert: Export) -> None:
    bundle = litert()
    file = bundle.path / "litert/step.tflite"
    content = file.read_bytes()
    assert b"kind_export" not in content
    assert str(Path(__file__).parents[2]).encode() not in content
    found = describe_file("litert", file)
    assert [spec.name for spec in found.inputs] == ["latents", "history", "step_index", "class_index", "guidance"]
    assert [spec.name for spec in found.outputs] == ["next_latents", "next_history"]
    assert [one["id"] for one in json.loads(found.texts["kind.classes"])] == [one.id for one in bundle.manifest.classes]


def test_the_same_export_gives_the_same_bytes(litert: Export) -> None:
    bundle = litert(*_INT8)
    again = litert(*_INT8, "--json")
    for name in ("step", "decode"):
        files = [one.path / f"litert/{name}.tflite" for one in (bundle, again)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_fewer_bits_are_smaller(litert: Export) -> None:
    works = [count_bundle(litert(*options))["litert"]["step"] for options in ((), _HALF, _INT8)]
    assert works[1].weight_bytes < 0.6 * works[0].weight_bytes
    assert works[2].weight_bytes < works[1].weight_bytes
    assert {8, 16} <= set(works[2].bytes_by_bits)


def test_the_work_is_that_of_onnx(litert: Export) -> None:
    bundle = litert("--target", "onnx")
    works = count_bundle(bundle)
    litert, onnx = works["litert"]["step"], works["onnx"]["step"]
    assert litert.flops() == onnx.flops()
    assert {op.op_class for op in litert.ops} >= {"linear", "attention", "softmax", "lookup", "norm"}
    assert {op.layer for op in litert.ops} == {op.layer for op in onnx.ops}


def test_packs_swap_without_building_anew(litert: Export) -> None:
    bundle = litert("--packs")
    golden = load_file(bundle.path / "golden.safetensors")
    base = open_generator(bundle.path, bundle.manifest, "litert")
    for index, entry in enumerate(bundle.manifest.packs):
        *_, latents = base.with_pack(read_pack(bundle.path / entry.file)).trajectory(golden[f"{index}.noise"], 0)
        assert psnr_db(golden[f"{index}.latents"][-1:], latents) > 35
    assert bundle.manifest.data["targets"]["litert"]["parity"]["detached_psnr_db"] > 60
    assert all(one.lint.num_free == one.lint.num_ops for one in lint_bundle(bundle.path))


def test_kind_run_and_kind_bench_know_it(litert: Export, tmp_path: Path) -> None:
    bundle, picture, results = litert(), tmp_path / "one.png", tmp_path / "here.json"
    done = CliRunner().invoke(
        run, [str(bundle.path), "--runtime", "litert", "--class", bundle.manifest.classes[1].id, "-o", str(picture)]
    )
    assert done.exit_code == 0, done.output
    with Image.open(picture) as image:
        assert image.size == (8, 8)
    options = ["--runtime", "litert", "--repeat", "3", "--warmup", "1", "--profile", "-o", str(results)]
    done = CliRunner().invoke(bench, ["run", str(bundle.path), *options])
    assert done.exit_code == 0, done.output
    assert "litert has no profile" in done.output
    (case,) = json.loads(results.read_text())["cases"]
    assert case["runtime"] == "litert"


def test_the_lint_names_what_a_gpu_cannot_take(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(load_target("litert"), "STYLE", GraphStyle())
    artifact = Artifact.lower("litert", make_reference(2), tmp_path)
    work = count_program(tmp_path / "step.tflite", artifact.specs().programs["step"], "litert")
    found = {(one.op_type, one.reason.removeprefix("the GPU delegate ")) for one in lint_program(work)}
    assert ("GATHER_ND", "has no operator for it") in found
    assert ("SLICE", "slices 3 or 4 axes, not 2") in found
    assert ("TRANSPOSE", "takes 4 axes at most, not 5") in found
    said = lint(work)
    assert said.num_free == said.num_ops - sum(one.num_ops for one in said.findings) < said.num_ops
