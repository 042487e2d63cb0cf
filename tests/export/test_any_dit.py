"""DiTs as diffusers makes them, every block with embedders of its own: exported, decoded, and given back exactly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import AutoencoderKL, DiTPipeline, DiTTransformer2DModel, DPMSolverMultistepScheduler
from diffusers.pipelines.dit import pipeline_dit
from safetensors.torch import load_file

from diffusers_folders import LABELS, evil_pickle, random_transformer, write_pipeline
from kind_core.closeness import psnr_db
from kind_core.diffusers.folder import load_diffusers
from kind_core.noise import start_noise
from kind_core.schedule import make_scheduler
from kind_export.cli import main
from kind_runtimes.bundle import open_bundle
from kind_runtimes.engines.diffusers import open_pipeline
from kind_runtimes.generator import open_generator
from tiny_autoencoder import save_autoencoder

STEPS = 3
COSINE = DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a norm that has gain and offset, attention without biases and a variance."""
    path = tmp_path_factory.mktemp("dit") / "dit"
    transformer = random_transformer(
        in_channels=4, out_channels=8, norm_elementwise_affine=True, attention_bias=False, norm_eps=1e-2
    )
    write_pipeline(path, transformer, COSINE)
    return path


def _export(folder: Path, output: Path, *options: str, classes: str = "tench,label 2") -> Path:
    given = ["--from-diffusers", str(folder), "--classes", classes, "--steps", str(STEPS), "--guidance", "2"]
    done = CliRunner().invoke(main, [*given, *options, "-o", str(output)])
    assert done.exit_code == 0, done.output
    return output


@pytest.fixture(scope="module")
def baked(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of `folder` for onnxruntime."""
    return _export(folder, tmp_path_factory.mktemp("baked") / "two.kind", "--target", "onnx")


@torch.no_grad()
def _sample(folder: Path, label: int) -> np.ndarray:
    """Latents by nothing but diffusers."""
    transformer = DiTTransformer2DModel.from_pretrained(folder / "transformer", low_cpu_mem_usage=False)
    scheduler = make_scheduler(load_diffusers(folder, [label]).config.diffusion, "dpmpp", STEPS)
    latents = torch.from_numpy(start_noise(0, (1, 4, 8, 8)))
    for timestep in scheduler.timesteps:
        labels = torch.tensor([label, transformer.config.num_embeds_ada_norm])
        both = transformer(latents.repeat(2, 1, 1, 1), timestep.expand(2), labels).sample[:, :4]
        latents = scheduler.step(both[1:] + 2 * (both[:1] - both[1:]), timestep, latents).prev_sample
    return latents.numpy()


@pytest.mark.parametrize("is_baked", [True, False])
def test_it_draws_what_diffusers_draws(folder: Path, baked: Path, is_baked: bool, tmp_path: Path) -> None:
    output = baked if is_baked else _export(folder, tmp_path / "two.kind", "--target", "onnx", "--baking", "off")
    generator = open_generator(output, open_bundle(output).manifest, "onnx")
    drawn = []
    for index, label in enumerate((0, 2)):
        *_, latents = generator.trajectory(start_noise(0, (1, 4, 8, 8)), index)
        assert psnr_db(_sample(folder, label), latents) > 60
        drawn.append(latents)
    assert psnr_db(*drawn) < 30
    stored = json.loads((output / "report.json").read_text())["rewrites"]["conditioning"]
    assert stored == ("modulation table" if is_baked else "conditioning table and adaLN layers")


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_report_counts_the_embedders_of_every_block(folder: Path, baked: Path) -> None:
    model = json.loads((baked / "report.json").read_text())["model"]
    transformer = DiTTransformer2DModel.from_pretrained(folder / "transformer", low_cpu_mem_usage=False)
    vectors = 2 * 16  # one of the hidden size in each block
    biases, folded, left_out = 3 * vectors, 2 * vectors, vectors  # of q, k, v; of the norm; of the label not asked for
    assert model["parameters"]["composed"] == _count(transformer) + biases - folded - left_out
    replaced = [*(block.norm1 for block in transformer.transformer_blocks), transformer.proj_out_1]
    assert model["conditioning"]["replaces"] == sum(_count(module) for module in replaced) - left_out


def test_the_embedders_come_back_exactly(folder: Path, tmp_path: Path) -> None:
    output = _export(folder, tmp_path / "two.kind", "--target", "diffusers")
    expected = DiTTransformer2DModel.from_pretrained(folder / "transformer", low_cpu_mem_usage=False)
    actual = open_pipeline(output / "diffusers").learngene
    for theirs, ours in zip(expected.transformer_blocks, actual.transformer_blocks, strict=True):
        state, kept = theirs.norm1.emb.state_dict(), ours.norm1.emb.state_dict()
        table = "class_embedder.embedding_table.weight"
        state[table] = state[table][[0, 2, -1]]
        assert kept.keys() == state.keys()
        assert all(torch.equal(kept[name], state[name]) for name in state)


@pytest.mark.slow
@pytest.mark.parametrize("baking", ["on", "off"])
@pytest.mark.parametrize("target", ["onnx", "executorch", "coreml"])
def test_a_pipeline_is_exported_with_its_decoder(target: str, baking: str, tmp_path: Path) -> None:
    """All gates pass: steps, trajectory, graph and decoder, at the default precision of the target."""
    write_pipeline(tmp_path / "dit", random_transformer(in_channels=4, out_channels=8), COSINE)
    has_decoder = baking == "on"  # which knows nothing of how steps are conditioned
    if has_decoder:
        save_autoencoder(tmp_path / "dit" / "vae", "AutoencoderKL")
    output = _export(tmp_path / "dit", tmp_path / "two.kind", "--target", target, "--baking", baking)
    entry = open_bundle(output).manifest.data["targets"][target]
    assert set(entry["programs"]) == ({"step", "decode"} if has_decoder else {"step"})
    assert entry["parity"]["trajectory_psnr_db"] >= entry["parity"]["threshold_db"]
    assert (output / "preview.png").exists() == has_decoder
    if has_decoder:
        assert entry["parity"]["decode_psnr_db"] >= entry["parity"]["decode_threshold_db"]


def test_latents_that_reach_thousands_are_held_to_what_fp16_shows(tmp_path: Path) -> None:
    """Untrained weights let latents grow until the last step changes them by less than fp16's spacing there."""
    write_pipeline(tmp_path / "dit", random_transformer(in_channels=4, out_channels=8))
    given = ["--from-diffusers", str(tmp_path / "dit"), "--classes", "tench", "--target", "coreml", "--steps", "20"]
    done = CliRunner().invoke(main, [*given, "--latents-only", "-o", str(tmp_path / "grown.kind")])
    assert done.exit_code == 0, done.output
    parity = open_bundle(tmp_path / "grown.kind").manifest.data["targets"]["coreml"]["parity"]
    assert parity["trajectory_psnr_db"] > 60


def test_an_older_autoencoder_is_read_without_running_its_pickle(folder: Path, tmp_path: Path) -> None:
    """And what is written of it is no pickle."""
    path = shutil.copytree(folder, tmp_path / "dit")
    weights = save_autoencoder(path / "vae", "AutoencoderKL") / "diffusion_pytorch_model.safetensors"
    expected = AutoencoderKL.from_pretrained(path / "vae").state_dict()
    torch.save(load_file(weights), path / "vae" / "diffusion_pytorch_model.bin")
    weights.unlink()
    output = _export(path, tmp_path / "two.kind", "--target", "onnx,diffusers")
    assert all("decode" in spec.programs for spec in open_bundle(output).manifest.targets.values())
    assert not list(output.rglob("*.bin"))
    actual = open_pipeline(output / "diffusers").vae.state_dict()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    (path / "vae" / "diffusion_pytorch_model.bin").write_bytes(evil_pickle())
    given = ["--from-diffusers", str(path), "--classes", "0", "--target", "onnx", "--steps", "2"]
    done = CliRunner().invoke(main, [*given, "-o", str(tmp_path / "evil.kind")])
    assert done.exit_code == 1
    assert "holds more than weights, or is cut short: it was not loaded" in done.output


def test_the_picture_is_that_of_diffusers_own_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of DiTPipeline, which knows its null label by the number 1000."""
    transformer = random_transformer(in_channels=4, out_channels=8, num_embeds_ada_norm=1000)
    vae = AutoencoderKL.from_pretrained(save_autoencoder(tmp_path / "vae", "AutoencoderKL")).eval()
    scheduler = DPMSolverMultistepScheduler.from_config(COSINE.config, timestep_spacing="trailing")  # as every export
    pipeline = DiTPipeline(transformer, vae, scheduler)
    pipeline.save_pretrained(tmp_path / "dit")
    index = tmp_path / "dit" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"id2label": LABELS}))
    output = _export(tmp_path / "dit", tmp_path / "two.kind", "--target", "onnx", classes="goldfish,label 999")
    manifest = open_bundle(output).manifest
    assert [info.names for info in manifest.classes] == [("goldfish", "Carassius auratus"), ("label 999",)]
    generator = open_generator(output, manifest, "onnx")
    noise = torch.from_numpy(start_noise(0, (1, 4, 8, 8)))
    monkeypatch.setattr(pipeline_dit, "randn_tensor", lambda *_, **__: noise)
    pipeline.set_progress_bar_config(disable=True)
    pictures = []
    for number, label in enumerate((1, 999)):
        expected = pipeline([label], 2.0, num_inference_steps=STEPS, output_type="np").images[0]
        assert expected.shape == (16, 16, 3)
        assert expected.std() > 0.05
        actual = generator.decode_picture(generator.latents(number, seed=0)).astype(float)
        assert np.abs(actual - expected * 255).max() < 1
        pictures.append(actual)
    assert np.abs(pictures[0] - pictures[1]).max() > 8


def test_the_picture_of_a_bundle_is_that_of_the_pipeline_whose_autoencoder_says_no_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of diffusers itself, on the same folder: no gate sees a number that the reference reads wrong, too."""
    folder = tmp_path / "dit"
    vae = AutoencoderKL.from_pretrained(save_autoencoder(tmp_path / "vae", "AutoencoderKL")).eval()
    transformer = random_transformer(in_channels=4, out_channels=8, num_embeds_ada_norm=1000)
    scheduler = DPMSolverMultistepScheduler.from_config(COSINE.config, timestep_spacing="trailing")
    DiTPipeline(transformer, vae, scheduler).save_pretrained(folder)
    config = json.loads((folder / "vae" / "config.json").read_text())
    del config["scaling_factor"]
    (folder / "vae" / "config.json").write_text(json.dumps(config))
    pipeline = DiTPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.from_numpy(start_noise(0, (1, 4, 8, 8)))
    monkeypatch.setattr(pipeline_dit, "randn_tensor", lambda *_, **__: noise.clone())
    expected = pipeline([1], 2.0, num_inference_steps=STEPS, output_type="np").images[0]
    output = _export(folder, tmp_path / "one.kind", "--target", "onnx,diffusers", classes="1")
    for engine in ("onnx", "diffusers"):
        generator = open_generator(output, open_bundle(output, run_code=True).manifest, engine)
        levels = np.abs(generator.picture(0, 0).astype(np.float64) - expected * 255)
        assert levels.max() < 2, engine
    (folder / "vae" / "config.json").write_text(json.dumps(config | {"shift_factor": 0.3}))
    given = ["--from-diffusers", str(folder), "--classes", "1", "--target", "onnx", "-o", str(tmp_path / "two.kind")]
    refused = CliRunner().invoke(main, given)
    assert refused.exit_code == 1
    assert "has shift_factor 0.3, which DiTPipeline leaves out" in refused.output
