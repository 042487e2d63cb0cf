"""The diffusers autoencoder of a checkpoint that works on latents: found, checked, loaded, and run in either direction.

A checkpoint carries it in its folder `autoencoder/`, in the layout of diffusers, so that it decodes without a network.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kind_core.config import AutoencoderConfig
from kind_core.errors import CheckpointError, ConfigError
from kind_core.hashing import hash_file
from kind_core.quiet import without_import_noise
from kind_core.staging import link_file
from kind_core.tensor_files import read_pickled, write_tensors

AUTOENCODER_NAME = "autoencoder"
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
AUTOENCODER_FILES = (f"{AUTOENCODER_NAME}/config.json", f"{AUTOENCODER_NAME}/{WEIGHTS_NAME}")
_PICKLE_NAME = "diffusion_pytorch_model.bin"  # of older folders; it is loaded as weights only
_KINDS = ("AutoencoderTiny", "AutoencoderKL")


def read_autoencoder(folder: Path) -> AutoencoderConfig:
    """What a checkpoint says of the autoencoder in a local diffusers folder."""
    file = folder / "config.json"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"no autoencoder at {folder}: cannot read {file}: {error.strerror}"
        raise ConfigError(message, "give a folder with config.json and weights, as diffusers saves it") from error
    except ValueError as error:
        raise ConfigError(f"{file} is not JSON: {error}") from error
    kind = data.get("_class_name")
    if kind not in _KINDS:
        raise ConfigError(f"{file} has _class_name {kind!r}, expected one of {', '.join(_KINDS)}")
    if data.get("shift_factor"):
        raise ConfigError(f"{file} has shift_factor {data['shift_factor']!r}, expected none")
    if not find_weights(folder).is_file():
        raise ConfigError(f"{folder} has no {WEIGHTS_NAME}", "save it with diffusers' save_pretrained")
    blocks = data.get("block_out_channels") if kind == "AutoencoderKL" else data.get("encoder_block_out_channels")
    return AutoencoderConfig(
        kind=kind,
        source=AUTOENCODER_NAME,
        scaling_factor=data.get("scaling_factor", 1.0),
        downscale=2 ** (len(blocks) - 1),
    )


def find_weights(folder: Path) -> Path:
    """The weights in a diffusers folder: the safetensors, if it has no older pickle alone."""
    weights, pickle = folder / WEIGHTS_NAME, folder / _PICKLE_NAME
    return pickle if pickle.is_file() and not weights.is_file() else weights


def find_autoencoder(checkpoint: Path) -> Path:
    """The autoencoder folder of a checkpoint."""
    folder = checkpoint / AUTOENCODER_NAME
    _require_file(folder / WEIGHTS_NAME)  # a checkpoint has no pickle
    return folder


def _require_file(weights: Path) -> None:
    """Raise CheckpointError where the autoencoder that a checkpoint speaks of is not there."""
    if not weights.is_file():
        raise CheckpointError(
            f"the checkpoint works on latents, but {weights} is not there",
            "put its diffusers autoencoder there as safetensors, or export with --latents-only",
        )


def load_autoencoder(folder: Path, config: AutoencoderConfig) -> Any:
    """The diffusers model, in fp32, from a local folder; nothing is downloaded."""
    with without_import_noise():
        import diffusers

    if read_autoencoder(folder).kind != config.kind:
        raise CheckpointError(f"{folder} holds a {read_autoencoder(folder).kind}, expected a {config.kind}")
    try:
        model = getattr(diffusers, config.kind).from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=find_weights(folder).name == WEIGHTS_NAME,
            low_cpu_mem_usage=False,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"cannot load the autoencoder at {folder}: {reason}") from error
    return model.float().eval().requires_grad_(False)


def hash_autoencoder(folder: Path) -> str:
    """sha256 of the weights of an autoencoder: latents of one are nothing to another."""
    weights = find_weights(folder)
    _require_file(weights)
    return hash_file(weights)


def copy_autoencoder(source: Path, target: Path, *, is_linked: bool = True) -> None:
    """Put the files of an autoencoder into another folder, as safetensors; linked where the file system can."""
    target.mkdir(parents=True, exist_ok=True)
    put = link_file if is_linked else shutil.copyfile
    put(source / "config.json", target / "config.json")
    weights = find_weights(source)
    if weights.name == WEIGHTS_NAME:
        put(weights, target / WEIGHTS_NAME)
    else:
        write_tensors(target / WEIGHTS_NAME, read_pickled(weights))


class ImageDecoder(nn.Module):
    """Latents to images in [-1, 1], not clamped: the second half of an autoencoder with its scaling undone.

    `folder` is where its files lie.
    """

    def __init__(self, autoencoder: Any, config: AutoencoderConfig, folder: Path) -> None:
        super().__init__()
        self.config = config
        self.folder = folder
        self.is_tiny = config.kind == "AutoencoderTiny"
        self.post_quant = nn.Identity() if self.is_tiny else (autoencoder.post_quant_conv or nn.Identity())
        self.decoder = autoencoder.decoder
        if not self.is_tiny:
            _write_attention_out(self.decoder)

    def forward(self, latents: Tensor) -> Tensor:
        """(batch, channels, size, size) -> (batch, 3, size * downscale, size * downscale)."""
        if self.is_tiny:
            return self.decoder(latents / self.config.scaling_factor)  # type: ignore[no-any-return]  # in [-1, 1] too
        return self.decoder(self.post_quant(latents / self.config.scaling_factor))  # type: ignore[no-any-return]


def load_decoder(folder: Path, config: AutoencoderConfig) -> ImageDecoder:
    """The decoder of the autoencoder in a local folder."""
    return ImageDecoder(load_autoencoder(folder, config), config, folder)


def _write_attention_out(decoder: nn.Module) -> None:
    """Attention as products and a softmax: the same numbers, in operators that every exporter knows."""
    from diffusers.models.attention_processor import Attention, AttnProcessor

    for module in decoder.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())


@torch.no_grad()
def encode_moments(autoencoder: Any, config: AutoencoderConfig, images: Tensor) -> Tensor:
    """What an encoder says of images in [-1, 1]: latents; for AutoencoderKL mean and deviation of their distribution.

    (batch, channels or 2 * channels, size, size), not scaled: `read_moments` makes latents of them.
    """
    if config.kind == "AutoencoderTiny":
        return autoencoder.encode(images).latents  # type: ignore[no-any-return]
    distribution = autoencoder.encode(images).latent_dist
    return torch.cat([distribution.mean, distribution.std], dim=1)


def read_moments(moments: Tensor, config: AutoencoderConfig, noise: Tensor | None) -> Tensor:
    """Latents as the diffusion model takes them; `noise`, standard normals like them, draws from the distribution."""
    if config.kind == "AutoencoderTiny":
        return moments * config.scaling_factor
    mean, deviation = moments.chunk(2, dim=1)
    return (mean if noise is None else mean + deviation * noise) * config.scaling_factor
