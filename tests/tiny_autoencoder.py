"""Random autoencoders of diffusers, small enough to encode in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def save_autoencoder(folder: Path, kind: str, seed: int = 0) -> Path:
    """A random diffusers autoencoder that halves the side, with attention in the middle where it is a KL."""
    import diffusers

    torch.manual_seed(seed)
    common: dict[str, Any] = {"in_channels": 3, "out_channels": 3, "latent_channels": 4}
    if kind == "AutoencoderKL":
        model = diffusers.AutoencoderKL(
            **common, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, sample_size=16,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        )  # fmt: skip
    else:
        model = diffusers.AutoencoderTiny(
            **common, encoder_block_out_channels=(16, 16), decoder_block_out_channels=(16, 16),
            num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1),
        )  # fmt: skip
    model.save_pretrained(folder, safe_serialization=True)
    return folder
