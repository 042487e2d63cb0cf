"""Grids of sampled pictures, one row a class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from kind_core.config import ModelConfig
from kind_core.dit import KindDiT
from kind_core.files.staging import PART, staged
from kind_core.pictures import make_class_grid
from kind_core.sampling import sample_latents, to_images, to_pixels
from kind_core.schedule import choose_sampling

_MAX_ROWS = 12
_HEIGHT = 96  # pixels of a picture at least
# Latents to images in [0, 1].
Decode = Callable[[Tensor], Tensor]


@torch.no_grad()
def save_sample_grid(
    model: KindDiT, config: ModelConfig, file: Path, decode: Decode = to_images, *, columns: int = 8, seed: int = 0
) -> None:
    """Write a PNG of `columns` samples for each of the first classes, with the checkpoint's own sampling defaults.

    Each row stands under its class's name, pictures enlarged for looking at.
    """
    rows = min(config.dit.num_classes, _MAX_ROWS)
    device = model.null_label_embedding.device
    shape = (rows * columns, config.dit.in_channels, config.dit.sample_size, config.dit.sample_size)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)
    labels = torch.arange(rows, device=device).repeat_interleave(columns)
    diffusion = config.diffusion
    latents = sample_latents(model, diffusion, noise, labels, labels, choose_sampling(diffusion))
    pictures = list(to_pixels(decode(latents)))
    named = [(config.classes[row], pictures[row * columns : (row + 1) * columns]) for row in range(rows)]
    with staged(file, PART, force=True) as temporary:
        make_class_grid(named, _HEIGHT).save(temporary, format="PNG")
