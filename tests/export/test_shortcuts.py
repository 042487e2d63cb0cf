"""Exports that take a shortcut: guidance in some steps only, classes blended, ranks cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kind_core.checkpoint import load_checkpoint, save_checkpoint
from kind_core.closeness import psnr_db
from kind_core.errors import ClassNameError, ConfigError, TargetError, VerificationError
from kind_core.noise import start_noise
from kind_core.precisions import PRECISIONS
from kind_core.samplers import Sampling
from kind_core.sampling import sample_trajectory
from kind_export.later_packs import export_packs
from kind_export.pipeline import ExportResult, export_bundle
from kind_export.prepared import Prepared
from kind_export.request import TARGETS, ExportRequest
from kind_runtimes.bundle import open_bundle
from kind_runtimes.generator import open_generator
from kind_runtimes.manifest import check_schema
from tiny import tiny_config, tiny_model, tiny_model_config

pytestmark = pytest.mark.slow
STEPS, GUIDANCE, INTERVAL = 4, 2.0, (0.25, 0.75)
_WEIGHTS = {"onnx": "onnx/step.onnx", "executorch": "executorch/step.pte", "coreml": "coreml/step.mlpackage"}
Export = Callable[..., ExportResult]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes; the later half of the learngene's components counts little, so that a cut can be harmless."""
    path = tmp_path_factory.mktemp("shortcuts") / "model"
    dit = tiny_config(depth=1, hidden_size=64, learngene_rank=16)
    model = tiny_model(dit)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if name.endswith(".s"):
                tensor[8:] *= 0.01
    config = tiny_model_config(dit, noise_schedule="squaredcos_cap_v2", prediction_type="sample", sampler="dpmpp")
    save_checkpoint(path, config, model)
    return path


@pytest.fixture(scope="module")
def export(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    def run(*targets: str, folder: Path | None = None, **options: Any) -> ExportResult:
        output = (folder or tmp_path_factory.mktemp("out")) / "some.kind"
        given: dict[str, Any] = {"classes": ("giant panda",), "steps": STEPS, "guidance": GUIDANCE} | options
        return export_bundle(ExportRequest(checkpoint=checkpoint, output=output, targets=targets, **given))

    return run


@pytest.fixture(scope="module")
def guided(export: Export) -> ExportResult:
    return export("all", min_ios=18)


@pytest.fixture(scope="module")
def halved(export: Export) -> ExportResult:
    return export("all", min_ios=18, guidance_interval=INTERVAL)


@pytest.mark.parametrize(
    ("options", "is_approximate"),
    [({"max_rank": 15}, True), ({"max_rank": 16}, False), ({"energy": 0.9}, True), ({"energy": 1.0}, False)],
)
def test_limits_that_take_nothing_leave_the_gates_as_they_are(
    checkpoint: Path, options: dict[str, Any], is_approximate: bool
) -> None:
    request = ExportRequest(
        classes=("panda",), targets=("onnx",), checkpoint=checkpoint, steps=2, output=checkpoint.parent / "x", **options
    )
    prepared = Prepared(request, lambda stage: None)
    assert prepared.make_verifier(prepared.job).is_approximate == is_approximate


def _run_eager(checkpoint: Path, labels: torch.Tensor, gates: torch.Tensor, **how: Any) -> list[np.ndarray]:
    """The latents after each step of the gated model with all four classes."""
    source = load_checkpoint(checkpoint, range(4))
    noise = torch.from_numpy(start_noise(0, (1, 3, 8, 8)))
    latents = sample_trajectory(
        source.model, source.config.diffusion, noise, labels, gates,
        sampling=Sampling(sampler="dpmpp", steps=STEPS, guidance_scale=GUIDANCE, **how),
    )  # fmt: skip
    return [one.numpy() for one in latents[1:]]


def _run_bundle(result: ExportResult, target: str, class_index: int = 0) -> list[np.ndarray]:
    bundle = open_bundle(result.path)
    generator = open_generator(bundle.path, bundle.manifest, target)
    return list(generator.trajectory(start_noise(0, (1, 3, 8, 8)), class_index))


def _size_bytes(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("weight.bin")
    return sum(file.stat().st_size for file in files)


def _require_close(expected: list[np.ndarray], actual: list[np.ndarray], target: str) -> None:
    for one, other in zip(expected, actual, strict=True):
        assert psnr_db(one, other) > (35 if target == "coreml" else 60)


def test_guided_steps_are_in_the_manifest(guided: ExportResult, halved: ExportResult) -> None:
    data = json.loads((halved.path / "manifest.json").read_text())
    check_schema(data, "manifest", "manifest.json")
    assert (data["guidance_interval"], data["guided_steps"]) == ([0.25, 0.75], [1, 2])
    assert [halved.manifest.sampling.guided[i] for i in range(STEPS)] == [False, True, True, False]
    assert not {"guidance_interval", "guided_steps"} & set(guided.manifest.data)
    assert all(guided.manifest.sampling.guided[i] for i in range(STEPS))


@pytest.mark.parametrize("target", TARGETS)
def test_steps_outside_the_interval_are_not_guided(
    target: str, checkpoint: Path, guided: ExportResult, halved: ExportResult
) -> None:
    panda = torch.tensor([0])
    expected = _run_eager(checkpoint, panda, panda, guidance_interval=INTERVAL)
    actual = _run_bundle(halved, target)
    _require_close(expected, actual, target)
    everywhere = _run_eager(checkpoint, panda, panda)
    _require_close(everywhere, _run_bundle(guided, target), target)
    assert psnr_db(everywhere[-1], actual[-1]) < 30
    parity = halved.manifest.data["targets"][target]["parity"]
    assert (
        parity["trajectory_psnr_db"]
        > parity["threshold_db"]
        == PRECISIONS["fp16" if target == "coreml" else "fp32"].trajectory_db
    )


@pytest.mark.parametrize("target", TARGETS)
def test_both_halves_share_one_copy_of_the_weights(target: str, guided: ExportResult, halved: ExportResult) -> None:
    full, both = (_size_bytes(result.path / _WEIGHTS[target]) for result in (guided, halved))
    assert full / 2 < both < 1.3 * full


def test_only_onnx_chooses_by_itself(halved: ExportResult) -> None:
    programs = {name: target.programs for name, target in halved.manifest.targets.items()}
    assert set(programs["onnx"]) == {"step", "decode"}
    for target in ("coreml", "executorch"):
        assert set(programs[target]) == {"step", "step_unguided", "decode"}
        unguided = programs[target]["step_unguided"]
        assert unguided.file == programs[target]["step"].file
        assert "guidance" not in {spec.name for spec in unguided.inputs}


def test_core_ml_holds_both_halves_from_ios_18_on(export: Export, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="needs iOS 18, min-ios is 17") as caught:
        export("coreml", folder=tmp_path, guidance_interval=INTERVAL)
    assert caught.value.hint == "add --min-ios 18"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("classes", [(), ("seashore",)], ids=["alone", "beside a class"])
def test_blend_draws_what_the_model_with_both_gates_draws(
    classes: tuple[str, ...], checkpoint: Path, export: Export
) -> None:
    result = export("onnx", classes=classes, blends=(("giant panda", "lemon"),))
    assert [info.name for info in result.manifest.classes] == [*classes, "giant panda + lemon"]
    assert result.manifest.classes[-1].id == "n02510455-n07749582"
    gates = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    expected = _run_eager(checkpoint, gates / 2, gates)
    actual = _run_bundle(result, "onnx", len(classes))
    _require_close(expected, actual, "onnx")
    for part in (0, 2):
        alone = _run_eager(checkpoint, torch.tensor([part]), torch.tensor([part]))
        assert psnr_db(alone[-1], actual[-1]) < 30
    if classes:
        coast = torch.tensor([3])
        _require_close(_run_eager(checkpoint, coast, coast), _run_bundle(result, "onnx", 0), "onnx")
    parity = result.parities["onnx"]
    assert parity.num_classes == len(classes) + 1
    assert parity.trajectory_psnr_db > parity.threshold_db == PRECISIONS["fp32"].trajectory_db


def test_parts_of_a_blend_may_be_classes_too(checkpoint: Path, export: Export) -> None:
    result = export("onnx", classes=("lemon", "giant panda"), blends=(("giant panda", "lemon"),))
    assert [info.name for info in result.manifest.classes] == ["lemon", "giant panda", "giant panda + lemon"]
    gates = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    _require_close(_run_eager(checkpoint, gates / 2, gates), _run_bundle(result, "onnx", 2), "onnx")


def test_bad_blends_are_refused(export: Export, tmp_path: Path) -> None:
    cases: tuple[tuple[dict[str, Any], type[Exception], str], ...] = (
        ({"blends": (("giant panda", "lemno"),)}, ClassNameError, "unknown class 'lemno'.*'lemon'"),
        ({"blends": (("giant panda",),)}, ConfigError, "blend 'giant panda' does not name two classes"),
        ({"blends": (("lemon", "lemon"),)}, ClassNameError, "'lemon'"),
        (
            {"blends": (("giant panda", "lemon"),) * 2},
            ClassNameError,
            r"blend 'giant panda\+lemon' was asked for twice",
        ),
        ({"blends": (("giant panda", "lemon"),), "packs": True}, ConfigError, "--blend .* not with --packs"),
    )
    for options, kind, message in cases:
        with pytest.raises(kind, match=message):
            export("onnx", folder=tmp_path, **options)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cut", [{"max_rank": 8}, {"energy": 0.999}], ids=["rank", "energy"])
def test_cut_ranks_are_told_and_held_to_a_lower_gate(cut: dict[str, Any], export: Export, guided: ExportResult) -> None:
    result = export("onnx", **cut)
    data = result.manifest.data
    assert 0 < data["rewrites"]["rank_truncation_error"] < 0.1
    parity = data["targets"]["onnx"]["parity"]
    assert parity["trajectory_psnr_db"] > parity["threshold_db"] == 25
    assert parity["trajectory_psnr_db"] < guided.parities["onnx"].trajectory_psnr_db - 20
    ranks = {name: one["live_rank"] for name, one in data["rewrites"]["matrices_of_a_block"].items()}
    before = guided.manifest.data["rewrites"]["matrices_of_a_block"]
    assert all(rank < before[name]["live_rank"] for name, rank in ranks.items())
    assert _size_bytes(result.path / "onnx/step.onnx") < _size_bytes(guided.path / "onnx/step.onnx")


def test_a_base_of_cut_ranks_and_its_later_packs_are_held_to_the_lower_gate(checkpoint: Path, export: Export) -> None:
    base = export("onnx", packs=True, max_rank=7)
    alone = base.parities["onnx"].detached_psnr_db
    assert alone is not None
    assert PRECISIONS["int4"].trajectory_db < alone < PRECISIONS["fp32"].trajectory_db
    later = ExportRequest(classes=("lesser panda",), targets=(), checkpoint=checkpoint, packs=True, base=base.path)
    assert export_packs(later).files[0].exists()


def test_core_ml_with_cut_ranks_is_held_to_the_cut_graph(export: Export) -> None:
    result = export("coreml", max_rank=8)
    assert result.manifest.data["rewrites"]["rank_truncation_error"] > 0
    assert result.parities["coreml"].trajectory_psnr_db > result.parities["coreml"].threshold_db == 25


def test_cut_that_destroys_the_picture_is_not_published(export: Export, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"expected .* dB or more; nothing was published"):
        export("onnx", folder=tmp_path, max_rank=1)
    assert not list(tmp_path.iterdir())


def test_nothing_is_cut_by_default(guided: ExportResult) -> None:
    assert "rank_truncation_error" not in guided.manifest.data["rewrites"]
