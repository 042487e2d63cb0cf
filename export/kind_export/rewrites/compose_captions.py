"""Given: a gated model of captions that knows only the asked domains, and the table of a sampler.
Result: a compact model as of classes, its modulations in a table, with the layers that read a caption.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kind_core.schedule import SamplerTable
from kind_core.text.pixart import CrossAttention, KindPixArt, PixArtBlock, TextProjection
from kind_export.compact.model import CaptionLayers, CompactModel, Layer, ModulationTable, scale_offset
from kind_export.rewrites.compose_gates import compose_trunk, frozen


@torch.no_grad()
def compose_captions(model: KindPixArt, sampler: SamplerTable) -> CompactModel:
    """Split `model` into learngene and tailors; nothing is merged yet."""
    table = ModulationTable(values=_modulations(model, torch.from_numpy(sampler.timesteps)))
    return replace(compose_trunk(model, sampler, table), captions=_caption_layers(model))


def _modulations(model: KindPixArt, timesteps: Tensor) -> Tensor:
    """(steps, domains + 1, 6 * depth + 2, hidden), no domain last."""
    domains = model.config.num_classes
    labels = [torch.full((len(timesteps),), label) for label in (*range(domains), -1)]
    embedded = torch.stack([model.embed_conditioning(timesteps, label) for label in labels], dim=1)
    shared = model.adaln(F.silu(embedded)).unflatten(-1, (6, -1))
    blocks = [shared + block.modulation for block in model.blocks if isinstance(block, PixArtBlock)]
    final = embedded[..., None, :] + model.final.modulation
    return torch.cat([*blocks, final], dim=2) + scale_offset(model.config.depth)


def _caption_layers(model: KindPixArt) -> CaptionLayers:
    projection = model.text_projection
    layers = (projection.fc1, projection.fc2) if isinstance(projection, TextProjection) else ()
    return CaptionLayers(
        projection=tuple(_layer(layer) for layer in layers),
        blocks=tuple(_cross_layers(block.cross) for block in model.blocks if isinstance(block, PixArtBlock)),
        words=model.text.tokens,
        channels=model.text.channels,
    )


def _cross_layers(cross: CrossAttention) -> dict[str, Layer]:
    scale = 1 / math.sqrt(cross.q.out_features // cross.num_heads)
    layers = {name: _layer(getattr(cross, name)) for name in "qkvo"}
    weight, bias = layers["q"]
    return layers | {"q": (weight * scale, bias * scale)}


def _layer(layer: nn.Linear) -> Layer:
    return frozen(layer.weight), frozen(layer.bias)
