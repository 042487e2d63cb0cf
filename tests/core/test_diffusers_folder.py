"""Folders of diffusers as dense checkpoints, in the layout of facebook/DiT-XL-2-256, and the broken ones refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

from diffusers_folders import evil_pickle, random_transformer, write_folder
from kind_core.checkpoint import load_checkpoint, save_checkpoint
from kind_core.diffusers import folder as diffusers_folder
from kind_core.diffusers.folder import load_diffusers, read_diffusers_config
from kind_core.errors import CheckpointError, ConfigError
from tiny import tiny_batch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "dit")
    return tmp_path / "dit"


def test_labels_are_classes_by_number_and_name(folder: Path) -> None:
    config = read_diffusers_config(folder)
    assert [info.id for info in config.classes] == ["0", "1", "2"]
    assert [info.names for info in config.classes[:2]] == [("tench", "Tinca tinca"), ("goldfish", "Carassius auratus")]
    assert config.classes[2].names == ("label 2",)
    assert (config.dit.is_dense, config.dit.learn_sigma, config.autoencoder) == (True, True, None)


@torch.no_grad()
def test_the_model_is_diffusers_own(folder: Path) -> None:
    from diffusers import DiTTransformer2DModel

    checkpoint = load_diffusers(folder, [2, 0])
    assert [info.id for info in checkpoint.config.classes] == ["2", "0"]
    transformer = DiTTransformer2DModel.from_pretrained(folder / "transformer", low_cpu_mem_usage=False)
    latents, timesteps = tiny_batch(checkpoint.config.dit, 3)
    expected = transformer(latents, timesteps, torch.tensor([2, 0, 3])).sample
    labels = torch.tensor([0, 1, -1])
    assert (checkpoint.model(latents, timesteps, labels, labels) - expected).abs().max() < 1e-4
    assert load_diffusers(folder, [2, 0]).sha256 == checkpoint.sha256


@torch.no_grad()
def test_embedders_of_each_block_are_known_from_the_weights(folder: Path, tmp_path: Path) -> None:
    assert not load_diffusers(folder).config.dit.block_embedders
    transformer = random_transformer()
    transformer.save_pretrained(tmp_path / "own")
    checkpoint = load_diffusers(tmp_path / "own", [1])
    assert checkpoint.config.dit == checkpoint.model.config
    assert checkpoint.config.dit.block_embedders
    save_checkpoint(tmp_path / "ours", checkpoint.config, checkpoint.model)
    latents, timesteps = tiny_batch(checkpoint.config.dit, 2)
    labels = torch.tensor([0, -1])
    expected = transformer(latents, timesteps, torch.tensor([1, 3])).sample
    saved = load_checkpoint(tmp_path / "ours").model
    assert (saved(latents, timesteps, labels, labels) - expected).abs().max() < 1e-4


def test_a_transformer_alone_is_enough(folder: Path) -> None:
    config = load_diffusers(folder / "transformer").config
    assert (config.diffusion.noise_schedule, config.diffusion.prediction_type) == ("linear", "epsilon")
    assert [info.name for info in config.classes] == ["label 0", "label 1", "label 2"]


def test_weights_of_older_folders_are_read_without_running_a_pickle(folder: Path) -> None:
    transformer = folder / "transformer"
    (weights,) = transformer.glob("*.safetensors")
    expected = load_diffusers(folder, [0]).model.state_dict()
    from safetensors.torch import load_file

    torch.save(load_file(weights), transformer / "diffusion_pytorch_model.bin")
    weights.unlink()
    _edit(transformer / "config.json", _class_name="Transformer2DModel", cross_attention_dim=None)
    actual = load_diffusers(folder, [0]).model.state_dict()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    (transformer / "diffusion_pytorch_model.bin").write_bytes(evil_pickle())
    with pytest.raises(CheckpointError, match=r"\.bin holds more than weights, or is cut short: it was not loaded"):
        load_diffusers(folder, [0])


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False),
         ("squaredcos_cap_v2", "v_prediction", "ddim")),
        (DPMSolverMultistepScheduler(beta_schedule="linear"), ("linear", "epsilon", "dpmpp")),
        (FlowMatchEulerDiscreteScheduler(), ("flow", "flow_prediction", "euler")),
        (DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="sample"), ("flow", "sample", "dpmpp")),
    ],
)  # fmt: skip
def test_the_schedule_is_the_schedulers(folder: Path, scheduler: Any, expected: tuple[str, str, str]) -> None:
    write_folder(folder, scheduler)
    diffusion = read_diffusers_config(folder).diffusion
    assert (diffusion.noise_schedule, diffusion.prediction_type, diffusion.sampler) == expected


def test_the_autoencoder_is_named(folder: Path) -> None:
    (folder / "vae").mkdir()
    settings = {"_class_name": "AutoencoderKL", "scaling_factor": 0.18215, "block_out_channels": [128, 256, 512, 512]}
    (folder / "vae" / "config.json").write_text(json.dumps(settings))
    autoencoder = read_diffusers_config(folder).autoencoder
    assert autoencoder is not None
    assert (autoencoder.kind, autoencoder.scaling_factor, autoencoder.downscale) == ("AutoencoderKL", 0.18215, 8)


def _edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("file", "changes", "error", "match"),
    [
        ("transformer/config.json", {"_class_name": "UNet2DModel"}, CheckpointError, "has _class_name 'UNet2DModel'"),
        ("transformer/config.json", {"num_embeds_ada_norm": None}, CheckpointError, "num_embeds_ada_norm None"),
        (
            "transformer/config.json",
            {"norm_type": "ada_norm"},
            CheckpointError,
            "norm_type 'ada_norm', expected 'ada_norm",
        ),
        (
            "transformer/config.json",
            {"activation_fn": "geglu"},
            CheckpointError,
            "activation_fn 'geglu', expected 'gelu-",
        ),
        ("transformer/config.json", {"sample_size": [8, 8]}, ConfigError, r"sample_size is \[8, 8\], expected a whole"),
        ("scheduler/scheduler_config.json", {"trained_betas": [0.1]}, CheckpointError, "has trained_betas"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "sigmoid"}, ConfigError, "has beta_schedule 'sigmoid'"),
    ],
)
def test_another_model_is_refused(
    folder: Path, file: str, changes: dict[str, Any], error: type[Exception], match: str
) -> None:
    _edit(folder / file, **changes)
    with pytest.raises(error, match=match):
        read_diffusers_config(folder)


def test_broken_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is no diffusers folder"):
        load_diffusers(tmp_path)
    (weights,) = (folder / "transformer").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is not a whole safetensors file"):
        load_diffusers(folder)
    (folder / "transformer" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        load_diffusers(folder)


def test_a_conversion_that_is_not_equal_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert = diffusers_folder.from_diffusers

    def wrong(*args: Any) -> Any:
        model = convert(*args)
        with torch.no_grad():
            model.null_label_embedding += 1
        return model

    monkeypatch.setattr(diffusers_folder, "from_diffusers", wrong)
    with pytest.raises(CheckpointError, match="the converted model differs from diffusers' by"):
        load_diffusers(folder)
