"""What is read of an autoencoder's folder is what diffusers takes, said or left unsaid."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from kind_core.autoencoder import encode_moments, load_autoencoder, load_decoder, read_autoencoder, read_moments
from kind_core.config import AutoencoderConfig
from kind_core.errors import CheckpointError, ConfigError, KindError
from tiny_autoencoder import save_autoencoder

KINDS = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}


def edit(folder: Path, *without: str, **changes: Any) -> Path:
    """Change the settings of a folder, some of them left out."""
    file = folder / "config.json"
    data = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in data.items() if name not in without}))
    return folder


@pytest.mark.parametrize(("kind", "expected"), [("AutoencoderKL", 0.18215), ("AutoencoderTiny", 1.0)])
def test_a_missing_scaling_factor_is_diffusers_default(kind: str, expected: float, tmp_path: Path) -> None:
    folder = edit(save_autoencoder(tmp_path, kind), "scaling_factor", "shift_factor")
    config = read_autoencoder(folder)
    assert config.scaling_factor == KINDS[kind].from_pretrained(folder).config.scaling_factor == expected
    assert config.shift_factor == 0


def test_a_default_that_was_noted_as_unsaid_is_todays(tmp_path: Path) -> None:
    folder = save_autoencoder(tmp_path, "AutoencoderKL")
    edit(folder, scaling_factor=0.5, _use_default_values=["scaling_factor"])
    expected = AutoencoderKL.from_pretrained(folder).config.scaling_factor
    assert read_autoencoder(folder).scaling_factor == expected == 0.18215


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("blocks", [None, 1, 3])
def test_the_downscale_is_the_models(kind: str, blocks: int | None, tmp_path: Path) -> None:
    """None: nothing is said of the blocks."""
    widths = {} if blocks is None else {"block_out_channels": (32,) * blocks}
    if kind == "AutoencoderTiny" and blocks is not None:
        widths = {f"{part}_block_out_channels": (8,) * blocks for part in ("encoder", "decoder")}
        widths |= {f"num_{part}_blocks": (1,) * blocks for part in ("encoder", "decoder")}
    elif blocks is not None:
        widths |= {f"{way}_block_types": (f"{name}Block2D",) * blocks for way, name in (("down", "DownEncoder"), ("up", "UpDecoder"))}  # fmt: skip  # noqa: E501
    model = KINDS[kind](**widths)
    model.save_pretrained(tmp_path)
    if blocks is None:
        edit(tmp_path, *(name for name in model.config if "block" in name))
    config = read_autoencoder(tmp_path)
    moments = encode_moments(model, config, torch.zeros(1, 3, 32, 32))
    assert config.downscale * moments.shape[-1] == 32
    assert load_decoder(tmp_path, config, 4)(torch.zeros(1, 4, 4, 4)).shape[-1] == 4 * config.downscale


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_shift_is_undone_where_latents_become_pictures(kind: str, tmp_path: Path) -> None:
    folder = edit(save_autoencoder(tmp_path, kind), scaling_factor=0.5, shift_factor=0.25)
    config = read_autoencoder(folder)
    assert (config.scaling_factor, config.shift_factor) == (0.5, 0.25)
    model = load_autoencoder(folder, config)
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    encoded = model.encode(images)
    own = encoded.latents if kind == "AutoencoderTiny" else encoded.latent_dist.mean
    latents = read_moments(encode_moments(model, config, images), config, None)
    torch.testing.assert_close(latents, (own - 0.25) * 0.5)
    torch.testing.assert_close(load_decoder(folder, config, 4)(latents), model.decode(own).sample)


def test_where_it_lay_is_no_part_of_it() -> None:
    here, there = (AutoencoderConfig(kind="AutoencoderKL", source=source) for source in ("/home/me/vae", "autoencoder"))
    assert here == there
    assert here.to_dict() == {"kind": "AutoencoderKL", "source": "autoencoder", "scaling_factor": 1.0, "downscale": 8}
    shifted = AutoencoderConfig(kind="AutoencoderKL", shift_factor=0.5)
    assert AutoencoderConfig(**shifted.to_dict()) == shifted
    assert asdict(shifted) == shifted.to_dict()


@pytest.mark.parametrize(
    ("kind", "changes", "match"),
    [
        ("AutoencoderKL", {"scaling_factor": None}, "scaling_factor is None, expected a number"),
        ("AutoencoderKL", {"scaling_factor": "0.18215"}, "scaling_factor is '0.18215', expected a number"),
        ("AutoencoderKL", {"scaling_factor": 0}, "scaling_factor is 0, expected a number above 1e-06"),
        ("AutoencoderTiny", {"shift_factor": True}, "shift_factor is True, expected a number"),
        ("AutoencoderKL", {"block_out_channels": 32}, "block_out_channels is 32, expected a list of which each is a w"),
        ("AutoencoderKL", {"block_out_channels": [32] * 40}, "has down_block_types .*, expected 40 of them"),
        ("AutoencoderTiny", {"num_encoder_blocks": [1]}, r"has num_encoder_blocks \[1\], expected 2 of them"),
        ("AutoencoderTiny", {"upsampling_scaling_factor": 3}, "has upsampling_scaling_factor 3, expected 2"),
        ("AutoencoderKL", {"latents_mean": [0.1] * 4}, "has latents_mean .*, expected none"),
        ("AutoencoderKL", {"in_channels": 4}, "has in_channels 4, expected 3"),
        (
            "AutoencoderKL",
            {"_class_name": "VQModel"},
            "has _class_name 'VQModel', expected one of AutoencoderTiny, Autoencoder",
        ),
        ("AutoencoderKL", {"_class_name": ["AutoencoderKL"]}, "has _class_name .*, expected one of AutoencoderTiny"),
    ],
)
def test_what_does_not_fit_is_one_line(kind: str, changes: dict[str, Any], match: str, tmp_path: Path) -> None:
    folder = edit(save_autoencoder(tmp_path, kind), **changes)
    with pytest.raises(ConfigError, match=match) as caught:
        read_autoencoder(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "match"), [("[]", "holds a list"), ("{", "is not JSON"), ("[" * 10**5, "is not JSON")]
)
def test_settings_that_are_no_object_are_refused(text: str, match: str, tmp_path: Path) -> None:
    (save_autoencoder(tmp_path, "AutoencoderKL") / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=match):
        read_autoencoder(tmp_path)


def test_weights_that_are_not_there_are_not_drawn(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_autoencoder(tmp_path, "AutoencoderTiny")
    file = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    del state["decoder.layers.0.weight"]
    save_file(state, file)
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors of it, of them decoder\.layers\.0\.weight"):
        load_autoencoder(folder, read_autoencoder(folder))


def test_another_autoencoder_than_the_models_is_refused(tmp_path: Path) -> None:
    folder = save_autoencoder(tmp_path, "AutoencoderKL")
    for config, match in (
        (AutoencoderConfig(kind="AutoencoderTiny", downscale=2), "of kind AutoencoderKL, expected AutoencoderTiny"),
        (AutoencoderConfig(kind="AutoencoderKL", downscale=8), "of downscale 2, expected 8"),
    ):
        with pytest.raises(KindError, match=match):
            load_autoencoder(folder, config)
    with pytest.raises(CheckpointError, match="latents of 4 channels, the model has 16"):
        load_decoder(folder, read_autoencoder(folder), 16)
