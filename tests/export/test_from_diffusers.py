"""A DiT of diffusers goes through the same rewrites, targets, gates and report as a KIND checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import DiTTransformer2DModel, DPMSolverMultistepScheduler

from diffusers_folders import write_folder
from kind_core.closeness import psnr_db
from kind_core.diffusers.folder import read_diffusers_config
from kind_core.noise import start_noise
from kind_core.schedule import make_scheduler
from kind_export.cli import main
from kind_runtimes.bundle import open_bundle
from kind_runtimes.generator import open_generator

STEPS = 3
COSINE = DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dit") / "dit"
    write_folder(path, COSINE, depth=1)
    return path


@torch.no_grad()
def _sample(folder: Path, label: int, guidance: float) -> np.ndarray:
    """Latents by nothing but diffusers: its transformer, its scheduler, its way of guidance."""
    transformer = DiTTransformer2DModel.from_pretrained(folder / "transformer", low_cpu_mem_usage=False)
    scheduler = make_scheduler(read_diffusers_config(folder).diffusion, "dpmpp", STEPS)
    latents = torch.from_numpy(start_noise(0, (1, 4, 8, 8)))
    for timestep in scheduler.timesteps:
        labels = torch.tensor([label, transformer.config.num_embeds_ada_norm])
        both = transformer(latents.repeat(2, 1, 1, 1), timestep.expand(2), labels).sample[:, :4]
        output = both[1:] + guidance * (both[:1] - both[1:])
        latents = scheduler.step(output, timestep, latents).prev_sample
    return latents.numpy()


@pytest.mark.parametrize("options", [[], ["--max-rank", "30"]], ids=["exact", "cut"])
def test_a_dense_dit_is_exported_and_draws_what_diffusers_draws(
    folder: Path, options: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "fish.kind"
    arguments = ["--from-diffusers", str(folder), "--classes", "goldfish,label 2", "--target", "onnx", "--steps", "3"]
    arguments += ["--guidance", "2", *options, "-o", str(output)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    manifest = open_bundle(output).manifest
    assert [info.name for info in manifest.classes] == ["goldfish", "label 2"]
    assert set(manifest.targets["onnx"].programs) == {"step"}
    generator = open_generator(output, manifest, "onnx")
    for index, label in enumerate((1, 2)):
        *_, latents = generator.trajectory(start_noise(0, (1, 4, 8, 8)), index)
        assert psnr_db(_sample(folder, label, 2.0), latents) > (25 if options else 60)
    report = json.loads((output / "report.json").read_text())
    assert report["model"]["live_rank"] is None


@pytest.mark.slow
def test_every_target_takes_it(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "fish.kind"
    arguments = ["--from-diffusers", str(folder), "--classes", "1", "--target", "all,diffusers", "--steps", "3"]
    done = CliRunner().invoke(main, [*arguments, "-o", str(output)])
    assert done.exit_code == 0, done.output
    assert set(open_bundle(output).manifest.targets) == {"coreml", "onnx", "executorch", "diffusers"}


def test_its_labels_are_listed(folder: Path) -> None:
    listed = CliRunner().invoke(main, ["classes", "--from-diffusers", str(folder)])
    assert listed.stdout.splitlines()[:2] == ["0  tench, Tinca tinca", "1  goldfish, Carassius auratus"]


def test_what_does_not_go_together_is_refused(folder: Path, tmp_path: Path) -> None:
    def fail(*options: str) -> str:
        given = ["--from-diffusers", str(folder), "--classes", "goldfish", "--target", "onnx", "--steps", "2", *options]
        done = CliRunner().invoke(main, [*given, "-o", str(tmp_path / "fish.kind")])
        assert done.exit_code == 1
        return done.output

    assert "both --checkpoint and --from-diffusers were given" in fail("--checkpoint", str(folder))
    assert "the checkpoint has no tailors, so it has no packs" in fail("--packs")
    assert "unknown class 'panda'" in fail("--classes", "panda")


def test_an_autoencoder_is_left_out_only_on_request(tmp_path: Path) -> None:
    folder = tmp_path / "dit"
    write_folder(folder, COSINE, depth=1)
    (folder / "vae").mkdir()
    (folder / "vae" / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL", "scaling_factor": 0.18215}))
    arguments = ["--from-diffusers", str(folder), "--classes", "goldfish", "--target", "onnx", "--steps", "2"]
    arguments += ["-o", str(tmp_path / "fish.kind")]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 1
    assert "--latents-only" in refused.output
    done = CliRunner().invoke(main, [*arguments, "--latents-only"])
    assert done.exit_code == 0, done.output
    assert set(open_bundle(tmp_path / "fish.kind").manifest.targets["onnx"].programs) == {"step"}


def test_latents_only_is_for_latents(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["--classes", "panda", "--target", "onnx", "--latents-only"])
    assert done.exit_code == 1
    assert "the checkpoint's latents have 3 channels" in done.output
