"""The diffusers autoencoder of a checkpoint that works on latents: found, checked, loaded, and run in either direction.

A checkpoint carries it in its folder `autoencoder/`, in the layout of diffusers, so that it decodes without a network.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from kind_core.checkpoint_config import AUTOENCODER_NAME as AUTOENCODER_NAME
from kind_core.checkpoint_config import WEIGHTS_NAME
from kind_core.config import AutoencoderConfig
from kind_core.diffusers.component import Component, load_component, loading, read_component
from kind_core.diffusers.layout import require_settings
from kind_core.errors import CheckpointError, ConfigError
from kind_core.files.hashing import hash_file
from kind_core.files.staging import link_file
from kind_core.files.tensor_files import read_pickled, write_tensors

_PICKLE_NAME = "diffusion_pytorch_model.bin"  # of older folders; it is loaded as weights only
_WIDTHS = {"AutoencoderTiny": "encoder_block_out_channels", "AutoencoderKL": "block_out_channels"}
_PER_BLOCK = {
    "AutoencoderTiny": ("decoder_block_out_channels", "num_encoder_blocks", "num_decoder_blocks"),
    "AutoencoderKL": ("down_block_types", "up_block_types"),
}
_MAX_BLOCKS = 8  # two hundred and more pixels become one
_TRIAL_SIZE = 2  # of the latents that a loaded autoencoder is tried with


def read_autoencoder(folder: Path, *, with_weights: bool = True) -> AutoencoderConfig:
    """What a checkpoint says of the autoencoder in a local diffusers folder; raises ConfigError.

    `with_weights`: the weights must lie there too, as they do wherever it is run.
    """
    return _describe(_read_settings(folder), folder, with_weights=with_weights)


def _describe(component: Component, folder: Path, *, with_weights: bool) -> AutoencoderConfig:
    for name in ("in_channels", "out_channels"):
        if component.values[name] != 3:
            raise component.refuse(name, "3, those of a picture")
    for name in ("latents_mean", "latents_std"):
        if component.values.get(name) is not None:
            raise component.refuse(name, "none", "take an autoencoder with one scaling_factor for all channels")
    if with_weights:
        _require_even(component)
        if not find_weights(folder).is_file():
            raise ConfigError(f"{folder} has no {WEIGHTS_NAME}", "save it with diffusers' save_pretrained")
    widths = component.values[_WIDTHS[component.kind]]
    if not 1 <= len(widths) <= _MAX_BLOCKS:
        raise component.refuse(_WIDTHS[component.kind], f"1 to {_MAX_BLOCKS} of them")
    return AutoencoderConfig(
        kind=component.kind,
        scaling_factor=component.values["scaling_factor"],
        shift_factor=component.values["shift_factor"] or 0.0,
        downscale=2 ** (len(widths) - 1),  # each block but one halves the side
    )


def _read_settings(folder: Path) -> Component:
    return read_component(require_settings(folder), {kind: kind for kind in _WIDTHS}, ConfigError)


def _require_even(component: Component) -> None:
    """Raise ConfigError where the way out is no longer or shorter than the way in."""
    widths = _WIDTHS[component.kind]
    for name in _PER_BLOCK[component.kind]:
        if len(component.values[name]) != len(component.values[widths]):
            raise component.refuse(name, f"{len(component.values[widths])} of them, as many as {widths}")
    if component.values.get("upsampling_scaling_factor", 2) != 2:
        raise component.refuse("upsampling_scaling_factor", "2, what the encoder divides by")


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
    component = _read_settings(folder)
    found = _describe(component, folder, with_weights=True)
    for name in ("kind", "downscale"):
        if getattr(found, name) != getattr(config, name):
            raise CheckpointError(
                f"{folder} holds an autoencoder of {name} {getattr(found, name)}, expected {getattr(config, name)}",
                "put the autoencoder there that the model was trained with",
            )
    model = load_component(component, "autoencoder").requires_grad_(False)
    with loading(component, "autoencoder"):
        _try_both_ways(model, config)
    return model


@torch.no_grad()
def _try_both_ways(model: Any, config: AutoencoderConfig) -> None:
    """Raise whatever comes of settings that diffusers builds from, but cannot run with."""
    latents = torch.zeros(1, model.config.latent_channels, _TRIAL_SIZE, _TRIAL_SIZE)
    picture = model.decode(latents).sample
    expected = (1, 3, _TRIAL_SIZE * config.downscale, _TRIAL_SIZE * config.downscale)
    if picture.shape != expected or not picture.isfinite().all():
        raise ValueError(f"it decodes to {list(picture.shape)}, expected {list(expected)} finite numbers")
    if encode_moments(model, config, picture).shape[2:] != latents.shape[2:]:
        raise ValueError(f"it encodes a picture of {expected[-1]} to another size than {_TRIAL_SIZE}")


def hash_autoencoder(folder: Path) -> str:
    """sha256 of the weights of an autoencoder: latents of one are nothing to another."""
    weights = find_weights(folder)
    _require_file(weights)
    return hash_file(weights)


def hash_copy(folder: Path) -> str:
    """The same as `copy_autoencoder` puts them, so that a folder and its copies have one."""
    weights = find_weights(folder)
    if weights.name == WEIGHTS_NAME:
        return hash_autoencoder(folder)
    return hashlib.sha256(save({name: one.contiguous() for name, one in read_pickled(weights).items()})).hexdigest()


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
        latents = latents / self.config.scaling_factor
        if self.config.shift_factor:  # most have none: programs keep the operators that they need
            latents = latents + self.config.shift_factor
        result: Tensor = self.decoder(self.post_quant(latents))  # the tiny one's is in [-1, 1] too
        return result


def load_decoder(folder: Path, config: AutoencoderConfig, channels: int) -> ImageDecoder:
    """The decoder of the autoencoder in a local folder, for latents of so many channels."""
    autoencoder = load_autoencoder(folder, config)
    if autoencoder.config.latent_channels != channels:
        raise CheckpointError(
            f"{folder} decodes latents of {autoencoder.config.latent_channels} channels, the model has {channels}",
            "put the autoencoder there that the model was trained with",
        )
    return ImageDecoder(autoencoder, config, folder)


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
        result: Tensor = autoencoder.encode(images).latents
        return result
    distribution = autoencoder.encode(images).latent_dist
    return torch.cat([distribution.mean, distribution.std], dim=1)


def read_moments(moments: Tensor, config: AutoencoderConfig, noise: Tensor | None) -> Tensor:
    """Latents as the diffusion model takes them; `noise`, standard normals like them, draws from the distribution."""
    latents = moments
    if config.kind == "AutoencoderKL":
        mean, deviation = moments.chunk(2, dim=1)
        latents = mean if noise is None else mean + deviation * noise
    return (latents - config.shift_factor) * config.scaling_factor
