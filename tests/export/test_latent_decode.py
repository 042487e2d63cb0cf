"""Checkpoints of latents: their autoencoder becomes the decode program of every target, gated like a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from diffusers_folders import write_folder
from kind_core.autoencoder import ImageDecoder, read_autoencoder
from kind_core.checkpoint import load_checkpoint, save_checkpoint
from kind_core.errors import BudgetError, CheckpointError, ConfigError, VerificationError
from kind_export.budget import Budget
from kind_export.compact.decode import measure_decoder
from kind_export.pipeline import ExportResult, export_bundle
from kind_export.request import ExportRequest
from kind_runtimes.bundle import open_bundle
from kind_runtimes.generator import open_generator
from tiny import tiny_config, tiny_model, tiny_model_config
from tiny_autoencoder import save_autoencoder


@pytest.fixture(params=["AutoencoderKL", "AutoencoderTiny"])
def latent_checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save_latent_checkpoint(tmp_path, request.param)


COSINE = DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample")


def save_latent_checkpoint(tmp_path: Path, kind: str, depth: int = 1) -> Path:
    folder = save_autoencoder(tmp_path / "vae", kind)
    dit = tiny_config(in_channels=4, learn_sigma=True, depth=depth)
    diffusion = {"noise_schedule": "squaredcos_cap_v2", "prediction_type": "sample", "steps": 3}
    config = replace(tiny_model_config(dit, **diffusion), autoencoder=read_autoencoder(folder))
    save_checkpoint(tmp_path / "latent", config, tiny_model(dit), autoencoder=folder)
    return tmp_path / "latent"


def export(checkpoint: Path, output: Path, **options: Any) -> Any:
    request = ExportRequest(checkpoint=checkpoint, output=output, **{"classes": ("lemon",), **options})
    return export_bundle(request)


Exported = Callable[[str, str], tuple[Path, ExportResult]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The checkpoint of an autoencoder, and its bundle for a target."""

    @cache
    def make(kind: str, target: str) -> tuple[Path, ExportResult]:
        checkpoint = save_latent_checkpoint(tmp_path_factory.mktemp(kind), kind)
        return checkpoint, export(checkpoint, checkpoint.parent / "out.kind", targets=(target,))

    return make


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "executorch", "coreml"])
@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderTiny"])
def test_every_target_decodes_latents(exported: Exported, kind: str, target: str) -> None:
    latent_checkpoint, result = exported(kind, target)
    spec = result.manifest.targets[target].programs["decode"]
    assert spec.inputs[0].shape == (1, 4, 8, 8)
    assert spec.outputs[0].shape == (1, 3, 16, 16)
    parity = result.parities[target]
    assert parity.decode_psnr_db is not None
    assert parity.decode_psnr_db >= parity.decode_threshold_db
    if target == "coreml":  # in fp16 by itself
        _require_half(result, target)
    bundle = open_bundle(result.path)
    generator = open_generator(bundle.path, bundle.manifest, target)
    latents = generator.latents(0, seed=3)
    checkpoint = load_checkpoint(latent_checkpoint, [2])
    expected = checkpoint.decode(torch.from_numpy(latents))[0].permute(1, 2, 0).numpy() * 255
    assert generator.decode_picture(latents).shape == (16, 16, 3)
    assert np.abs(generator.decode_picture(latents).astype(float) - expected).max() < 4


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "executorch"])
def test_fp16_reaches_the_decoder_where_it_fits(tmp_path: Path, target: str) -> None:
    checkpoint = save_latent_checkpoint(tmp_path, "AutoencoderKL", depth=2)
    _require_half(export(checkpoint, tmp_path / "half.kind", targets=(target,), precision="fp16"), target)


def _require_half(result: ExportResult, target: str) -> None:
    facts = result.manifest.data["targets"][target]["lowering"]["decode"]
    assert facts["precision"] == "fp16"
    assert 0 < facts["peak_activation"] < 1000
    assert result.parities[target].decode_threshold_db == 40


def _overflow(checkpoint: Path) -> None:
    """Let the decoder compute with numbers beyond fp16, and answer as before."""
    from safetensors.torch import load_file, save_file

    file = checkpoint / "autoencoder" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    for name in ("decoder.conv_in.weight", "decoder.conv_in.bias"):
        state[name] *= 3e5
    file.unlink()  # it is linked with the original
    save_file(state, file)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "coreml"])
def test_a_decoder_that_overflows_in_fp16_stays_in_fp32(tmp_path: Path, target: str) -> None:
    checkpoint = save_latent_checkpoint(tmp_path, "AutoencoderKL")
    _overflow(checkpoint)
    result = export(checkpoint, tmp_path / "half.kind", targets=(target,), precision="fp16")
    facts = result.manifest.data["targets"][target]["lowering"]["decode"]
    assert facts["precision"] == "fp32"
    assert facts["peak_activation"] > 65504
    psnr = result.parities[target].decode_psnr_db
    assert psnr is not None
    assert psnr > 40


def test_without_that_rule_the_gate_would_stop_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = save_latent_checkpoint(tmp_path, "AutoencoderKL")
    _overflow(checkpoint)
    monkeypatch.setattr("kind_export.compact.decode.FP16_MAX", 1e30)
    with pytest.raises(VerificationError, match="decode of class 'lemon' has"):
        export(checkpoint, tmp_path / "half.kind", targets=("onnx",), precision="fp16")
    assert not (tmp_path / "half.kind").exists()


def test_a_wrong_decoder_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = save_latent_checkpoint(tmp_path, "AutoencoderTiny")
    monkeypatch.setattr(
        "kind_export.compact.decode.DecodeProgram.forward", lambda self, x: self.decoder(x * 0.98).clamp(0, 1)
    )
    with pytest.raises(VerificationError, match="decode of class 'lemon'"):
        export(checkpoint, tmp_path / "out.kind", targets=("onnx",))


def test_the_peak_is_that_of_the_worst_layer() -> None:
    class Fake(ImageDecoder):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.norm = torch.nn.GroupNorm(1, 4)

        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            return self.norm(latents * 100) * 1e-3

    latents = np.zeros((1, 4, 2, 2), np.float32)
    latents[0, 0, 0, 0] = 1.0
    measured = measure_decoder(Fake(), [latents])
    assert measured.peak == pytest.approx(300)  # of three times the latents
    assert measured.peak_square == pytest.approx((300 - 300 / 16) ** 2)
    assert not measured.fits_fp16


def test_a_checkpoint_without_its_autoencoder_says_so(latent_checkpoint: Path, tmp_path: Path) -> None:
    (latent_checkpoint / "autoencoder" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"works on latents, but .* is not there"):
        load_checkpoint(latent_checkpoint)
    with pytest.raises(ConfigError, match="no autoencoder at"):
        read_autoencoder(tmp_path / "none")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderTiny"])
def test_the_diffusers_pipeline_decodes_as_the_checkpoint(tmp_path: Path, kind: str) -> None:
    result = export(save_latent_checkpoint(tmp_path, kind), tmp_path / "out.kind", targets=("diffusers",))
    parity = result.parities["diffusers"]
    assert parity.decode_psnr_db is not None
    assert parity.decode_psnr_db > 60
    assert result.manifest.targets["diffusers"].programs["decode"].outputs[0].shape == (1, 3, 16, 16)


@pytest.mark.slow
def test_a_pipeline_of_diffusers_comes_with_its_autoencoder(tmp_path: Path) -> None:
    write_folder(tmp_path / "dit", COSINE, depth=1)
    save_autoencoder(tmp_path / "dit" / "vae", "AutoencoderKL")
    result = export(
        tmp_path / "dit", tmp_path / "out.kind", classes=("goldfish",), targets=("onnx",), from_diffusers=True, steps=3
    )
    assert result.manifest.targets["onnx"].programs["decode"].outputs[0].shape == (1, 3, 16, 16)
    assert (tmp_path / "out.kind" / "preview.png").exists()


@pytest.mark.slow
def test_a_budget_counts_the_decoder(exported: Exported, tmp_path: Path) -> None:
    checkpoint, whole = exported("AutoencoderKL", "onnx")
    # step counts as low as the tiny checkpoint's own are not planned for
    size = sum(f["size_bytes"] for n, f in whole.manifest.data["files"].items() if n.startswith("onnx/"))
    with pytest.raises(BudgetError):
        export(
            checkpoint, tmp_path / "small.kind", targets=("onnx",), steps=8, budget=Budget(max_size_bytes=size // 20)
        )
    export(checkpoint, tmp_path / "fits.kind", targets=("onnx",), steps=8, budget=Budget(max_size_bytes=size * 6 // 5))
