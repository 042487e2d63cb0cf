"""The diffusers folder: a user's `from_pretrained` draws the picture of kind-run, and wrong folders are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DiffusionPipeline
from diffusers.utils import dynamic_modules_utils
from PIL import Image
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file, save_file

from kind_bench.measure.cases import BenchRequest, measure_bundle
from kind_core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from kind_core.classes import ClassInfo
from kind_core.closeness import psnr_db
from kind_core.config import AutoencoderConfig, ModelConfig
from kind_core.errors import ConfigError, KindError, TargetError, VerificationError
from kind_core.noise import start_noise
from kind_core.samplers import Sampling
from kind_export.budget import Budget
from kind_export.pipeline import export_bundle
from kind_export.request import ExportRequest, parse_targets
from kind_export.targets.diffusers.write import write_pipeline
from kind_export.verify.gates import Verifier
from kind_export.verify.reference import Reference
from kind_export.verify.trial import Trial, check_pipeline
from kind_runtimes.bundle import open_bundle
from kind_runtimes.draw import RunRequest, run_bundle
from kind_runtimes.engines.diffusers import open_pipeline
from kind_runtimes.engines.runtime import EngineOptions, open_program
from kind_runtimes.manifest import Manifest, ProgramSpec
from tiny import CLASSES, tiny_config, tiny_model, tiny_model_config

STEPS = 4
COSINE = {"noise_schedule": "squaredcos_cap_v2", "prediction_type": "sample", "sampler": "dpmpp"}


def export(folder: Path, dit: dict[str, Any], diffusion: dict[str, Any], **changes: Any) -> Path:
    """A bundle with a diffusers folder of two classes; `changes` are fields of the request."""
    config = tiny_model_config(tiny_config(depth=1, **dit), **diffusion)
    if not (folder / "model").exists():
        save_checkpoint(folder / "model", config, tiny_model(config.dit))
    request = ExportRequest(
        **{
            "classes": ("giant panda", "lemon"), "targets": ("diffusers",), "checkpoint": folder / "model",
            "output": folder / "two.kind", "steps": STEPS, "guidance": 2.0, **changes,
        }
    )  # fmt: skip
    return export_bundle(request).path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("diffusers"), {}, COSINE)


@pytest.fixture
def pipeline(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The folder as the documentation says to open it."""
    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path))
    folder = str(bundle / "diffusers")
    opened = DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)
    opened.set_progress_bar_config(disable=True)
    return opened


def test_a_users_pipeline_draws_the_picture_of_kind_run(bundle: Path, pipeline: Any, tmp_path: Path) -> None:
    for name in ("lemon", "giant panda"):
        output = tmp_path / f"{name}.png"
        run_bundle(RunRequest(bundle=bundle, class_name=name, seed=7, runtime="diffusers", output=output))
        with Image.open(output) as picture:
            expected = np.asarray(picture)
        actual = np.asarray(pipeline(name, seed=7).images[0])
        assert np.abs(actual.astype(int) - expected).max() <= 1
        assert actual.std() > 5


def test_its_trajectory_is_the_eager_models(bundle: Path, pipeline: Any) -> None:
    golden, seen = load_arrays(bundle / "golden.safetensors"), []
    pipeline([1], seed=0, callback_on_step_end=lambda pipe, i, t, state: seen.append(state["latents"].numpy()))
    assert len(seen) == STEPS
    for step, latents in enumerate(seen):
        assert psnr_db(golden["1.latents"][step + 1 : step + 2], latents) > 80


def test_classes_come_in_batches_by_index_id_or_name(pipeline: Any) -> None:
    ids = [CLASSES[0].id, CLASSES[2].id]
    both = pipeline([ids[1], "Panda Bear"], seed=3, output_type="pt").images
    alone = [pipeline(one, seed=seed, output_type="pt").images[0] for one, seed in ((1, 3), (0, 4))]
    assert (both - torch.stack(alone)).abs().max() < 1e-4
    with pytest.raises(ValueError, match=r"unknown class 'tiger', expected one of giant panda, lemon, or 0 to 1"):
        pipeline("tiger")
    with pytest.raises(ValueError, match="unknown class 2"):
        pipeline(2)


def test_noise_may_be_given_or_drawn_by_torch(pipeline: Any) -> None:
    noise = torch.from_numpy(start_noise(5, (1, 3, 8, 8)))
    assert torch.equal(
        pipeline(0, latents=noise, output_type="pt").images, pipeline(0, seed=5, output_type="pt").images
    )
    drawn = [pipeline(0, generator=torch.Generator().manual_seed(1), output_type="pt").images for _ in range(2)]
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0], pipeline(0, seed=1, output_type="pt").images)


def test_steps_and_guidance_are_open(pipeline: Any) -> None:
    default = pipeline(0, output_type="latent").images
    assert torch.equal(default, pipeline(0, num_inference_steps=STEPS, guidance_scale=2.0, output_type="latent").images)
    assert not torch.equal(default, pipeline(0, guidance_scale=1.0, output_type="latent").images)
    assert not torch.equal(default, pipeline(0, num_inference_steps=3, output_type="latent").images)


def test_it_saves_and_opens_again(bundle: Path, pipeline: Any, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path / "saved")
    shutil.copy(bundle / "diffusers" / "pipeline.py", tmp_path / "saved")
    again = open_pipeline(tmp_path / "saved")
    assert torch.equal(again(1, output_type="pt").images, pipeline(1, output_type="pt").images)


@pytest.mark.parametrize(
    ("dit", "diffusion"),
    [
        ({"learngene_rank": None, "tailor_rank": 0}, COSINE),
        ({"in_channels": 4, "learn_sigma": True, "mlp_norm_eps": 1e-3}, {"sampler": "ddim"}),
        ({}, {"noise_schedule": "flow", "prediction_type": "flow_prediction", "sampler": "euler"}),
        ({}, {"noise_schedule": "flow", "prediction_type": "sample", "sampler": "dpmpp"}),
    ],
    ids=["dense", "latents with a variance", "flow", "flow of images"],
)
def test_every_kind_of_model_passes_its_gate(dit: dict[str, Any], diffusion: dict[str, Any], tmp_path: Path) -> None:
    path = export(tmp_path, dit, diffusion, guidance_interval=(0.25, 0.75))
    entry = open_bundle(path).manifest.data["targets"]["diffusers"]
    assert entry["parity"]["trajectory_psnr_db"] > 80
    assert entry["lowering"]["step"]["pipeline_psnr_db"] > 80
    assert ("decode" in entry["programs"]) == (dit.get("in_channels", 3) == 3)
    is_dense = "learngene_rank" in dit
    expected = ["learngene"] if is_dense else ["learngene", "transformer_giant_panda", "transformer_lemon"]
    assert entry["lowering"]["step"]["components"] == expected


@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderTiny"])
def test_an_autoencoder_turns_latents_into_pictures(kind: str, tmp_path: Path) -> None:
    vae = _tiny_autoencoder(kind)
    vae.save_pretrained(tmp_path / "autoencoder")
    dit = tiny_config(depth=1, in_channels=4, num_classes=1)
    settings = AutoencoderConfig(kind=kind, source="autoencoder", scaling_factor=0.5, downscale=2)
    config = replace(tiny_model_config(dit, **COSINE), autoencoder=settings)
    checkpoint = Checkpoint(config=config, model=tiny_model(dit), sha256="")
    reference = Reference(checkpoint=checkpoint, sampling=Sampling(sampler="dpmpp", steps=STEPS, guidance_scale=2.0))
    write_pipeline(tmp_path / "pipeline", checkpoint, reference.sampling, "fp32", tmp_path / "autoencoder")
    opened = open_pipeline(tmp_path / "pipeline")
    latents = torch.from_numpy(reference.run(0).latents[-1])
    with torch.no_grad():
        expected = (vae.decode(latents / 0.5).sample * 0.5 + 0.5).clamp(0, 1)
    assert expected.shape == (1, 3, 16, 16)
    assert expected.std() > 0.01
    assert (opened(0, seed=0, output_type="pt").images - expected).abs().max() < 1e-3
    alone = open_pipeline(tmp_path / "pipeline", only=("vae", "scheduler"))
    assert alone.learngene is None
    with torch.no_grad():
        assert torch.equal(alone.decode(latents), expected)


def _tiny_autoencoder(kind: str) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "AutoencoderTiny":
            widths = (8, 8)
            return AutoencoderTiny(
                encoder_block_out_channels=widths, decoder_block_out_channels=widths, num_encoder_blocks=(1, 1),
                num_decoder_blocks=(1, 1), latent_channels=4,
            ).eval()  # fmt: skip
        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
        return AutoencoderKL(**blocks, block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4).eval()


def test_a_blend_is_a_transformer_of_its_own(tmp_path: Path) -> None:
    path = export(tmp_path, {}, COSINE, classes=(), blends=(("giant panda", "lemon"),))
    opened = open_pipeline(path / "diffusers")
    assert list(opened.config.classes) == [f"{CLASSES[0].id}-{CLASSES[2].id}"]


def test_half_precision_is_half_the_bytes_and_within_its_gate(bundle: Path, tmp_path: Path) -> None:
    path = export(tmp_path, {}, COSINE, precision="fp16")
    parity = open_bundle(path).manifest.data["targets"]["diffusers"]["parity"]
    assert parity["threshold_db"] == 35 < parity["trajectory_psnr_db"]
    weights = "diffusers/learngene/diffusion_pytorch_model.safetensors"
    assert (path / weights).stat().st_size < 0.6 * (bundle / weights).stat().st_size


def test_the_same_export_gives_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    again = export(tmp_path, {}, COSINE)
    first, second = (open_bundle(path).manifest.files for path in (bundle, again))
    assert first == second


def _change_config(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(data | changes))

    return change


def _change_tensor(component: str, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def alter(folder: Path) -> None:
        file = folder / component / "diffusion_pytorch_model.safetensors"
        tensors = load_file(file)
        tensors[name] = change(tensors[name]).contiguous()
        save_file(tensors, file)

    return alter


def _swap(first: str, second: str) -> Callable[[Path], None]:
    def swap(folder: Path) -> None:
        (folder / first).rename(folder / "aside")
        (folder / second).rename(folder / first)
        (folder / "aside").rename(folder / second)

    return swap


def _in_code(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / "pipeline.py").read_text()
        assert old in text
        (folder / "pipeline.py").write_text(text.replace(old, new))

    return change


LABELS = "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight"
FAULTS: dict[str, Callable[[Path], None]] = {
    "classes swapped": _swap("transformer_giant_panda", "transformer_lemon"),
    "learngene as class": _swap("learngene", "transformer_lemon"),
    "another spacing of timesteps": _change_config("scheduler/scheduler_config.json", timestep_spacing="leading"),
    "another prediction type": _change_config("scheduler/scheduler_config.json", prediction_type="v_prediction"),
    "null label lost": _change_tensor("learngene", LABELS, torch.zeros_like),
    "guidance off": _change_config("model_index.json", guidance_interval=[0.0, 0.1]),
    "one matrix transposed": _change_tensor("transformer_lemon", "transformer_blocks.0.attn1.to_q.weight", torch.t),
    "label embedding lost": _change_tensor("transformer_lemon", LABELS, lambda t: t * torch.tensor([[0.0], [1.0]])),
    "noise of another generator": _in_code("0xD2511F53", "0xD2511F55"),
    "guidance upside down": _in_code("(output - null)", "(null - output)"),
    "decoded twice as bright": _in_code("pixels * 0.5 + 0.5", "pixels + 0.5"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_folder_is_refused(bundle: Path, fault: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(bundle, wrong)
    FAULTS[fault](wrong / "diffusers")
    manifest = open_bundle(bundle).manifest
    source = load_checkpoint(bundle.parent / "model", [0, 2])
    verifier = Verifier(
        Reference(checkpoint=source, sampling=Sampling(sampler="dpmpp", steps=STEPS, guidance_scale=2.0))
    )
    with pytest.raises(VerificationError, match="nothing was published"):
        _judge(wrong, manifest, verifier)


def _judge(folder: Path, manifest: Manifest, verifier: Verifier) -> None:
    spec = manifest.targets["diffusers"]
    trial = Trial(folder=folder, verifier=verifier, packs=(), on_stage=lambda stage: None)
    trial.check(trial.open(spec), spec)
    check_pipeline(folder, verifier.trajectories, verifier.reference, "fp32")


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"packs": True}, ConfigError, "--packs does not go with target 'diffusers'"),
        ({"budget": Budget(max_size_bytes=1000)}, ConfigError, "other limits does not go with target 'diffusers'"),
        ({"max_rank": 4}, ConfigError, "--max-rank does not go with target 'diffusers'"),
        ({"precision": "int8"}, TargetError, "target 'diffusers' has no precision 'int8'"),
    ],
)
def test_what_the_folder_cannot_hold_is_refused(
    changes: dict[str, Any], error: type[KindError], match: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=match):
        export(tmp_path, {}, COSINE, **changes)
    assert not (tmp_path / "two.kind").exists()


def test_it_is_no_part_of_all() -> None:
    assert parse_targets(["all"]) == ["coreml", "onnx", "executorch"]
    assert parse_targets(["diffusers", "all"]) == ["coreml", "onnx", "executorch", "diffusers"]


def test_code_of_a_bundle_runs_only_when_asked_for_by_name(bundle: Path, tmp_path: Path) -> None:
    request = RunRequest(bundle=bundle, class_name="lemon", output=tmp_path / "lemon.png")
    with pytest.raises(TargetError, match="code that would run here"):
        run_bundle(request)
    with pytest.raises(TargetError, match="is left out: its pipeline"):
        measure_bundle(BenchRequest(bundle=bundle))
    with pytest.raises(TargetError, match="which torch alone decides"):
        open_program("diffusers", bundle / "diffusers", _step(bundle), EngineOptions(threads=1))


def _step(bundle: Path) -> ProgramSpec:
    return open_bundle(bundle).manifest.targets["diffusers"].programs["step"]


def test_the_report_has_its_time_and_no_work(bundle: Path) -> None:
    report = json.loads((bundle / "report.json").read_text())
    assert report["targets"]["diffusers"]["measured"]["step_ms"] > 0
    assert report["work"] == {}
    page = (bundle / "report.html").read_text()
    assert "transformer_giant_panda" in page


def test_class_names_never_become_code(tmp_path: Path) -> None:
    name = 'x"""\nraise SystemExit\n"""\\N'
    dit = tiny_config(depth=1, num_classes=1)
    config = ModelConfig(
        dit=dit, diffusion=tiny_model_config(dit, **COSINE).diffusion, classes=(ClassInfo(id="c0", names=(name,)),)
    )
    save_checkpoint(tmp_path / "model", config, tiny_model(dit))
    path = export(tmp_path, {}, COSINE, classes=("c0",))
    opened = open_pipeline(path / "diffusers")
    assert opened.find_class(name) == 0
    assert "SystemExit" not in (path / "diffusers" / "pipeline.py").read_text()
