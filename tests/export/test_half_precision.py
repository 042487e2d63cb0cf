"""fp16 is judged in fp16: a graph whose results overflow between its operators is refused by every target."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from artifacts import GUIDANCE, STEPS, Artifact, sampler_of
from click.testing import CliRunner

from every_target import EVERY_TARGET
from kind_core.checkpoint import Checkpoint
from kind_core.closeness import psnr_db
from kind_core.errors import VerificationError
from kind_core.precisions import PRECISIONS
from kind_core.samplers import Sampling
from kind_export.cli import main
from kind_export.rewrites import RewriteOptions, rewrite
from kind_export.targets.programs import make_step
from kind_export.targets.target import TargetOptions, load_target
from kind_export.verify.reference import Reference
from kind_runtimes.bundle import open_bundle
from kind_runtimes.engines.onnx import open_program
from kind_runtimes.manifest import ProgramSpec
from tiny import tiny_config, tiny_model, tiny_model_config

_STEP_INDEX = 1


def _reference(gain: float = 1.0) -> Reference:
    """A model whose hidden layer of the MLP is `gain` times larger, and its output the same."""
    dit = tiny_config(num_classes=1, depth=1)
    config = tiny_model_config(dit, noise_schedule="squaredcos_cap_v2", prediction_type="sample")
    model = tiny_model(dit)
    mlp = model.blocks[0].mlp
    with torch.no_grad():
        mlp.up.U *= gain
        mlp.up.bias *= gain
        mlp.down.V /= gain
    checkpoint = Checkpoint(config=config, model=model, sha256="")
    return Reference(checkpoint=checkpoint, sampling=Sampling(sampler="dpmpp", steps=STEPS, guidance_scale=GUIDANCE))


def _run(artifact: Artifact, *, is_rounded: bool) -> np.ndarray:
    """The latents after one step of the reference's trajectory."""
    trajectory = artifact.verifier.trajectories[0]
    step = next(artifact.lowerings())
    spec = ProgramSpec(name="step", file="step.onnx", inputs=step.inputs, outputs=step.outputs)
    program = open_program(artifact.folder / "step.onnx", spec)
    inputs = {
        "latents": trajectory.latents[_STEP_INDEX],
        "history": trajectory.denoised[_STEP_INDEX - 1],
        "step_index": np.array([_STEP_INDEX], np.int32),
        "class_index": np.zeros(1, np.int32),
        "guidance": np.array([GUIDANCE], np.float32),
    }
    return (program.node_by_node() if is_rounded else program)(inputs)["next_latents"]


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Artifact]:
    """The programs of a target whose hidden layer does not fit fp16."""
    reference = _reference(gain=16000.0)
    return cache(lambda name: Artifact.lower(name, reference, tmp_path_factory.mktemp(name), "fp16"))


@pytest.mark.parametrize("target", EVERY_TARGET)
def test_overflow_between_operators_is_refused(target: str, overflowing: Callable[[str], Artifact]) -> None:
    artifact = overflowing(target)
    with pytest.raises(VerificationError, match=r"step 0 .* has NaN or infinity .* nothing was published"):
        artifact.verify()


def test_kernels_of_this_cpu_do_not_see_that_overflow(overflowing: Callable[[str], Artifact]) -> None:
    artifact = overflowing("onnx")
    expected = artifact.verifier.trajectories[0].latents[_STEP_INDEX + 1]
    assert psnr_db(expected, _run(artifact, is_rounded=False)) > PRECISIONS["fp16"].step_db
    assert not np.isfinite(_run(artifact, is_rounded=True)).all()


def test_without_overflow_only_rounding_differs(tmp_path: Path) -> None:
    artifact = Artifact.lower("onnx", _reference(), tmp_path, "fp16")
    whole, rounded = _run(artifact, is_rounded=False), _run(artifact, is_rounded=True)
    assert 50 < psnr_db(whole, rounded) < 90
    parity = artifact.verify().to_dict()
    assert parity["verified_by"].endswith("on CPU")
    assert parity["rounded_by"].endswith("node by node with each result rounded to fp16")


def test_a_graph_of_two_branches_runs_node_by_node(tmp_path: Path) -> None:
    reference, target, options = _reference(), load_target("onnx"), TargetOptions(precision="fp16")
    compact = rewrite(reference.checkpoint.model, sampler_of(reference), RewriteOptions())
    step, unguided = (make_step(compact, target, options, is_guided=one) for one in (True, False))
    target.lower_pair(step, unguided, [False, True, False, False], tmp_path / "step.onnx", options)
    assert "If" in {node.op_type for node in onnx.load(tmp_path / "step.onnx").graph.node}
    spec = ProgramSpec(name="step", file="step.onnx", inputs=step.inputs, outputs=step.outputs)
    whole = open_program(tmp_path / "step.onnx", spec)
    rounded = whole.node_by_node()
    inputs = dict(zip((one.name for one in step.inputs), (one.numpy() for one in step.example), strict=True))
    inputs |= {"latents": reference.run(0).noise, "guidance": np.array([GUIDANCE], np.float32)}
    for index in (0, 1):  # a branch each
        inputs["step_index"] = np.array([index], np.int32)
        expected, actual = whole(inputs), rounded(inputs)
        assert set(expected) == set(actual)
        assert min(psnr_db(expected[name], actual[name]) for name in expected) > 50


@pytest.mark.slow
def test_the_sample_passes_in_fp16(tmp_path: Path) -> None:
    output = tmp_path / "panda.kind"
    options = ["--classes", "giant panda", "--target", "onnx", "--precision", "fp16", "--steps", "4"]
    done = CliRunner().invoke(main, [*options, "-o", str(output)])
    assert done.exit_code == 0, done.output
    parity = open_bundle(output).manifest.data["targets"]["onnx"]["parity"]
    assert parity["rounded_by"].endswith("rounded to fp16")
    assert "rounded to fp16" in (output / "report.html").read_text()
