"""A folder of diffusers with a PixArt, read as a dense model.

    model_index.json   transformer/   scheduler/   vae/   as PixArt-alpha/PixArt-XL-2-512x512, or transformer/ alone

The text encoder is not read: what is drawn is told by its embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from kind_core.classes import ClassInfo
from kind_core.config import ModelConfig
from kind_core.diffusers.component import Component, load_component, read_component
from kind_core.diffusers.folder import (
    AUTOENCODER_FOLDER,
    read_folder_autoencoder,
    read_folder_diffusion,
    read_index,
    require_close,
    require_named,
)
from kind_core.diffusers.layout import find_transformer
from kind_core.text.convert import HINT, PIXART, from_pixart, read_text, read_trunk
from kind_core.text.pixart import KindPixArt

if TYPE_CHECKING:
    from diffusers import PixArtTransformer2DModel

_TOKENS = {"PixArtSigmaPipeline": 300}
_ALPHA_TOKENS = 120
_GUIDANCE_SCALE = 4.5  # the default of diffusers' PixArt pipelines
_DOWNSCALE = 8  # of the autoencoder that every PixArt was trained with, where the folder has none


def read_pixart_config(path: Path, domains: tuple[ClassInfo, ...]) -> ModelConfig:
    """The config of the dense model in a folder, with these domains as its classes."""
    index = read_index(path)
    transformer = _read_transformer(path)
    require_named(index, path, "transformer", (PIXART,))
    autoencoder = read_folder_autoencoder(path / AUTOENCODER_FOLDER, index)
    downscale = _DOWNSCALE if autoencoder is None else autoencoder.downscale
    return ModelConfig(
        dit=read_trunk(transformer.values, len(domains)),
        text=read_text(transformer.values, count_tokens(index), downscale),
        diffusion=replace(read_folder_diffusion(path, index), guidance_scale=_GUIDANCE_SCALE),
        classes=domains,
        autoencoder=autoencoder,
    )


def load_pixart(path: Path, config: ModelConfig) -> KindPixArt:
    """The dense model that `read_pixart_config` describes, in fp32, proven equal to diffusers' own."""
    assert config.text is not None
    transformer = load_component(_read_transformer(path), "transformer")
    model = from_pixart(transformer, config.text, config.dit.num_classes)
    _require_equal(model, transformer, path)
    return model


def count_tokens(index: Mapping[str, object]) -> int:
    """How many words a pipeline's text encoder gives by default."""
    return _TOKENS.get(str(index.get("_class_name")), _ALPHA_TOKENS)


def _read_transformer(path: Path) -> Component:
    return read_component(find_transformer(path) / "config.json", {PIXART: PIXART}, hint=HINT)


@torch.no_grad()
def _require_equal(model: KindPixArt, transformer: PixArtTransformer2DModel, path: Path) -> None:
    """Raise CheckpointError where the converted model answers otherwise than diffusers', with words left out or not."""
    config, text = model.config, model.text
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((2, config.in_channels, config.sample_size, config.sample_size), generator=generator)
    words = torch.randn((2, 4, text.channels), generator=generator)
    timesteps, mask = torch.tensor([10.0, 900.0]), torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    theirs = transformer(
        latents,
        encoder_hidden_states=words,
        timestep=timesteps,
        encoder_attention_mask=mask,
        added_cond_kwargs=describe_picture(model, 2),
    ).sample
    closed = torch.full((2,), -1)
    ours = model(latents, timesteps, closed, closed, words, mask)
    require_close(path, float((ours - theirs).abs().max()), float(theirs.max() - theirs.min()))


def describe_picture(model: KindPixArt, batch: int) -> dict[str, torch.Tensor | None]:
    """What diffusers' transformer is told of the size of `batch` pictures: `added_cond_kwargs`."""
    side = model.text.picture_side
    if side is None:
        return {"resolution": None, "aspect_ratio": None}
    return {"resolution": torch.full((batch, 2), float(side)), "aspect_ratio": torch.ones(batch, 1)}
