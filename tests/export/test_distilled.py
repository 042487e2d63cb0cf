"""Few-step models as programs: one half, no guidance, where a step ends baked in; and the faults of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from artifacts import Artifact, sampler_of
from click.testing import CliRunner, Result
from torch import Tensor, nn

from distilled import GUIDANCE, STEPS, distilled_config, save_distilled
from kind_core.checkpoint import Checkpoint
from kind_core.errors import ConfigError, VerificationError
from kind_core.sampling import sample_trajectory
from kind_core.schedule import choose_sampling
from kind_export.cli import main as export
from kind_export.compact.model import CompactModel, Embedders, ModulationTable
from kind_export.compact.step import StepProgram
from kind_export.rewrites import RewriteOptions, rewrite
from kind_export.rewrites.bake_conditioning import bake_conditioning
from kind_export.rewrites.compose_gates import compose_gates
from kind_export.verify.reference import Reference
from kind_runtimes.bundle import open_bundle
from kind_runtimes.cli import main as run
from kind_runtimes.generator import open_generator
from kind_runtimes.inspection import inspect_path
from tiny import tiny_model

LEMON = 2


def call(command: object, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(one) for one in arguments])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def reference() -> Reference:
    config = distilled_config(num_classes=1, depth=3)
    checkpoint = Checkpoint(config=config, model=tiny_model(config.dit), sha256="")
    return Reference(checkpoint=checkpoint, sampling=choose_sampling(config.diffusion))


@pytest.fixture(scope="module")
def artifact(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return Artifact.lower("onnx", reference, tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    checkpoint = save_distilled(folder / "student")
    result = call(export, "--checkpoint", checkpoint, "--classes", "lemon", "--target", "onnx", "-o", folder / "b.kind")
    assert result.exit_code == 0, result.output
    return folder / "b.kind"


def test_manifest_says_that_guidance_is_built_in(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    assert manifest.data["format_version"] == 2
    assert manifest.data["distillation"]["guidance_scale"] == GUIDANCE
    assert manifest.data["distillation"]["steps"] == list(STEPS)
    assert "guided_steps" not in manifest.data
    programs = manifest.targets["onnx"].programs
    assert list(programs) == ["step", "decode"]
    assert [spec.name for spec in programs["step"].inputs] == ["latents", "step_index", "class_index"]
    report = json.loads((bundle / "report.json").read_text())
    assert report["sampling"]["passes_per_step"] == 1
    assert "3, built in by distillation for 4, 2, 1 steps" in (bundle / "report.html").read_text()
    assert inspect_path(bundle).facts["distillation"]["guidance_scale"] == GUIDANCE


def test_bundle_draws_what_the_student_draws(bundle: Path, tmp_path: Path) -> None:
    config = distilled_config()
    manifest = open_bundle(bundle).manifest
    generator = open_generator(bundle, manifest, "onnx")
    noise = np.random.default_rng(0).standard_normal(manifest.latents_shape).astype(np.float32)
    label = torch.tensor([LEMON])
    expected = sample_trajectory(
        tiny_model(config.dit), config.diffusion, torch.from_numpy(noise), label, label,
        choose_sampling(config.diffusion),
    )  # fmt: skip
    *_, actual = generator.trajectory(noise, 0)
    assert np.abs(actual - expected[-1].numpy()).max() < 1e-4
    assert call(run, bundle, "-o", tmp_path / "a.png").exit_code == 0


def test_guidance_is_refused_where_it_is_built_in(bundle: Path, tmp_path: Path) -> None:
    result = call(run, bundle, "--guidance", 2, "-o", tmp_path / "a.png")
    assert result.exit_code == 1
    assert "guidance 3 is built in; --guidance does not apply" in result.output
    assert not (tmp_path / "a.png").exists()
    manifest = open_bundle(bundle).manifest
    with pytest.raises(ConfigError, match="guidance 3 is built in"):
        open_generator(bundle, manifest, "onnx").picture(0, 1, guidance=3.0)


@pytest.mark.parametrize("script", [("benchmarks/engine_versions.py",), ("arm64/golden.py", "onnx")])
def test_scripts_of_other_engines_and_machines_hold_it(script: tuple[str, ...], bundle: Path) -> None:
    path, *options = script
    tests = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, tests / path, *options, bundle], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "b.kind" in done.stdout


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--target", "onnx", "--steps", "3"], "steps is 3, but the model was distilled for 4, 2, 1"),
        (["--target", "onnx", "--guidance", "3"], "guidance 3 is built in; --guidance does not apply"),
        (["--target", "onnx", "--guidance-interval", "0.2,0.8"], "--guidance-interval does not apply"),
        (["--target", "onnx", "--sampler", "dpmpp"], "sampler 'dpmpp' does not go with"),
        (["--target", "diffusers"], "the last 1 of this distilled model see where a step ends"),
    ],
)
def test_what_it_cannot_follow_is_refused(tmp_path: Path, options: list[str], expected: str) -> None:
    checkpoint = save_distilled(tmp_path / "student")
    result = call(export, "--checkpoint", checkpoint, "--classes", "lemon", *options, "-o", tmp_path / "b.kind")
    assert result.exit_code == 1
    assert expected in " ".join(result.output.split())
    assert not (tmp_path / "b.kind").exists()


def test_untrained_steps_are_marked_approximate(tmp_path: Path) -> None:
    checkpoint = save_distilled(tmp_path / "student")
    options = ["--classes", "lemon", "--target", "onnx", "--steps", "3", "--force-steps", "-o", tmp_path / "b.kind"]
    result = call(export, "--checkpoint", checkpoint, *options)
    assert result.exit_code == 0, result.output
    manifest = open_bundle(tmp_path / "b.kind").manifest
    assert (manifest.sampling.steps, manifest.is_approximate) == (3, True)
    assert "3 steps were not trained: approximate" in (tmp_path / "b.kind" / "report.html").read_text()


@pytest.mark.parametrize(("steps", "rank"), [(1, 1), (4, 2)])
def test_base_with_packs_takes_no_guidance(steps: int, rank: int, tmp_path: Path) -> None:
    """A pack has modulations of the rank that keeps one of kind-b/2 below 1.15 MB at one step, 1.25 MB at four."""
    checkpoint = save_distilled(tmp_path / "student")
    base = tmp_path / "base.kind"
    options = ["--classes", "lemon", "--target", "onnx", "--packs", "--steps", str(steps)]
    result = call(export, "--checkpoint", checkpoint, *options, "-o", base)
    assert result.exit_code == 0, result.output
    manifest = open_bundle(base).manifest
    inputs = {spec.name: spec.shape for spec in manifest.targets["onnx"].programs["step"].inputs}
    assert list(inputs) == ["latents", "step_index", "tailor", "modulation_basis", "modulation_coefficients"]
    assert inputs["modulation_basis"][0] == rank
    assert call(run, base, "--class", "lemon", "-o", tmp_path / "a.png").exit_code == 0
    assert call(run, base, "-o", tmp_path / "b.png").exit_code == 0


def _read(model: CompactModel, reads: tuple[int, ...]) -> CompactModel:
    assert isinstance(model.conditioning, Embedders)
    return bake_conditioning(replace(model, conditioning=replace(model.conditioning, reads=reads)), "on")


def _on_values(change: Callable[[Tensor], Tensor]) -> Callable[[CompactModel], CompactModel]:
    def fault(model: CompactModel) -> CompactModel:
        baked = bake_conditioning(model, "on")
        assert isinstance(baked.conditioning, ModulationTable)
        return replace(baked, conditioning=ModulationTable(values=change(baked.conditioning.values)))

    return fault


# Each takes the model as composed: three blocks, the last and the final layer told where a step ends.
FAULTS: dict[str, Callable[[CompactModel], CompactModel]] = {
    "r in place of t": lambda model: _read(model, (1, 1, 1, 1)),
    "t in place of r": lambda model: _read(model, (0, 0, 0, 0)),
    "r from a block too early": lambda model: _read(model, (0, 1, 1, 1)),
    "final layer at t": lambda model: _read(model, (0, 0, 1, 0)),
    "rows of the table swapped": _on_values(lambda values: values.flip(0)),
    "the null label's rows": _on_values(lambda values: values[:, -1:]),
    "a step's own rows shifted": _on_values(lambda values: values.roll(1, dims=0)),
}


def _compose(artifact: Artifact) -> CompactModel:
    return compose_gates(artifact.reference.checkpoint.model, sampler_of(artifact.reference))


def _class_rows(model: CompactModel) -> ModulationTable:
    """The rows of the only class, which a program that takes no guidance holds."""
    assert isinstance(model.conditioning, ModulationTable)
    return ModulationTable(values=model.conditioning.values[:, :1])


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_table_is_refused(artifact: Artifact, fault: str, tmp_path: Path) -> None:
    wrong = replace(artifact.compact, conditioning=_class_rows(FAULTS[fault](_compose(artifact))))
    artifact.seed_constants(wrong, tmp_path / "wrong")
    with pytest.raises(VerificationError, match="nothing was published"):
        artifact.verify(tmp_path / "wrong")


class _Guided(nn.Module):
    """A step with the null half left in, at a guidance scale of its own."""

    def __init__(self, model: CompactModel, scale: float) -> None:
        super().__init__()
        self.step = StepProgram(model)
        self.scale = scale

    def forward(self, latents: Tensor, step_index: Tensor, class_index: Tensor) -> tuple[Tensor, ...]:
        return self.step(latents, step_index, class_index, torch.full((1,), self.scale))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("fault", "scale"), [("guidance applied twice", GUIDANCE), ("the null half alone", 0.0)])
def test_null_half_left_in_is_refused(artifact: Artifact, fault: str, scale: float, tmp_path: Path) -> None:
    sampler = replace(sampler_of(artifact.reference), takes_guidance=True)
    compact = rewrite(artifact.reference.checkpoint.model, sampler, RewriteOptions(baking="on"))
    artifact.seed_module(0, lambda _: _Guided(compact, scale), tmp_path / "wrong")
    with pytest.raises(VerificationError, match="nothing was published"):
        artifact.verify(tmp_path / "wrong")


def test_right_programs_pass_and_run_one_half(artifact: Artifact) -> None:
    parity = artifact.verify()
    assert parity.trajectory_psnr_db >= parity.threshold_db
    assert parity.guidance_scales == (1.0,)
    table = artifact.compact.conditioning
    assert isinstance(table, ModulationTable)
    assert table.values.shape[:2] == (STEPS[0], 1)  # a row a step, none of the null label
    # what the faults start from
    assert torch.equal(_class_rows(bake_conditioning(_compose(artifact), "on")).values, table.values)
    step = next(artifact.lowerings()).module
    halves = []
    step.blocks[0].register_forward_hook(lambda _, inputs, output: halves.append(output.shape[0]))  # type: ignore[union-attr,index]
    step(torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.int32), torch.zeros(1, dtype=torch.int32))
    assert halves == [1]
