"""A tiny PixArt made in diffusers, every number of it drawn, and its folder in the layout of PixArt-XL-2-512x512."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, PixArtTransformer2DModel
from torch import Tensor

from kind_core.text.folder import describe_picture
from kind_core.text.pixart import KindPixArt
from kind_train.start.from_dit import InitRequest, init_from_pixart

HIDDEN, CHANNELS, WORDS = 24, 16, 5


@torch.no_grad()
def random_pixart(**changes: Any) -> PixArtTransformer2DModel:
    """16 tokens of width 24, two blocks, captions of 16 channels; `changes` are its arguments."""
    architecture = {
        "num_attention_heads": 2, "attention_head_dim": HIDDEN // 2, "in_channels": 4, "out_channels": 8,
        "num_layers": 2, "cross_attention_dim": HIDDEN, "caption_channels": CHANNELS, "sample_size": 8, "patch_size": 2,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = PixArtTransformer2DModel(**(architecture | changes)).eval()
        for parameter in transformer.parameters():
            parameter.normal_(std=0.2)
        transformer.proj_out.weight.mul_(0.25)  # so that a trajectory stays in the range of latents
    return transformer


def write_pixart(path: Path, **changes: Any) -> PixArtTransformer2DModel:
    """A pipeline folder without text encoder and autoencoder."""
    transformer = random_pixart(**changes)
    transformer.save_pretrained(path / "transformer")
    DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02).save_pretrained(path / "scheduler")
    index = {
        "_class_name": "PixArtAlphaPipeline",
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "transformer": ["diffusers", "PixArtTransformer2DModel"],
    }
    (path / "model_index.json").write_text(json.dumps(index))
    return transformer


def save_start(path: Path, pixart: Path, domains: tuple[str, ...] = ("photo", "ink sketch")) -> None:
    """The checkpoint of a PixArt's folder, N_G 8, N_T 2, with another tailor for every domain."""
    ranks: dict[str, Any] = {"learngene_rank": 8, "tailor_rank": 2, "tailors": "dealt"}
    init_from_pixart(InitRequest(source=pixart, output=path, is_pixart=True, domains=domains, **ranks))


def text_batch(channels: int = CHANNELS, sample_size: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents, timesteps, text and mask of three samples; two captions are shorter than five words."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn((3, 4, sample_size, sample_size), generator=generator)
    text = torch.randn((3, WORDS, channels), generator=generator)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1] * 5, [1, 0, 0, 0, 0]])
    return latents, torch.tensor([1.0, 500.5, 999.0]), text, mask


@torch.no_grad()
def ask_diffusers(
    transformer: PixArtTransformer2DModel, model: KindPixArt, batch: tuple[Tensor, Tensor, Tensor, Tensor]
) -> Tensor:
    """What diffusers' transformer, which is told the picture size of `model`, answers to `text_batch`."""
    latents, timesteps, text, mask = batch
    answer: Tensor = transformer(
        latents,
        encoder_hidden_states=text,
        timestep=timesteps,
        encoder_attention_mask=mask,
        added_cond_kwargs=describe_picture(model, len(latents)),
    ).sample
    return answer
