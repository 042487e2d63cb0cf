"""How a checkpoint shows itself: one line in a terminal, a table with pictures in a notebook."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from kind_core.config import ModelConfig
from kind_core.console import clean, count_of
from kind_core.flops import count_flops, count_parameters

if TYPE_CHECKING:
    import numpy as np

    from kind_core.checkpoint import Checkpoint

_MAX_NAMES = 6
_PICTURES = 4
_PICTURE_WIDTH = 96
# What may be computed to show a cell: a second or two on a laptop. Larger models show no pictures.
_BUDGET_FLOPS = 60e9


def name_classes(names: Sequence[str]) -> str:
    """The first names, and how many there are."""
    shown = ", ".join(names[:_MAX_NAMES])
    return shown if len(names) <= _MAX_NAMES else f"{shown} and {len(names) - _MAX_NAMES} more"


def describe_checkpoint(config: ModelConfig) -> str:
    """One line."""
    dit = config.dit
    rank = "dense" if dit.is_dense else f"N_G {dit.learngene_rank}, N_T {max(dit.ranks)}"
    shape = f"{dit.in_channels} x {dit.sample_size} x {dit.sample_size}"
    return clean(f"Checkpoint({name_classes([c.name for c in config.classes])}; {shape}; {rank})")


def render_checkpoint(checkpoint: Checkpoint) -> str:
    """HTML: what it is, and a picture of the first classes where they are quick to draw."""
    config = checkpoint.config
    dit, diffusion, names = config.dit, config.diffusion, [info.name for info in config.classes]
    rows = {
        "classes": name_classes(names),
        "architecture": f"hidden {dit.hidden_size}, depth {dit.depth}, {dit.num_heads} heads, patch {dit.patch_size}",
        "ranks": "dense" if dit.is_dense else f"learngene {dit.learngene_rank}, tailors {max(dit.ranks)}",
        "parameters": f"{count_parameters(dit).total / 1e6:.2f} M",
        "sampling": f"{count_of(diffusion.steps, f'{diffusion.sampler} step')}, guidance {diffusion.guidance_scale:g}",
        "licence": config.provenance.licence or "not stated",
        "sha256": checkpoint.sha256[:12],
    }
    return render_table("Checkpoint", rows) + "".join(
        render_picture(encode_png(pixels), name) for pixels, name in zip(_draw(checkpoint), names, strict=False)
    )


def render_table(title: str, rows: dict[str, str]) -> str:
    """A two-column table."""
    body = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in rows.items()
    )
    return f"<table><caption>{escape(title)}</caption>{body}</table>"


def render_picture(png: bytes, text: str, width: int = _PICTURE_WIDTH) -> str:
    """A picture inside the page, with `text` below and for those who cannot see it."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return (
        "<figure style='display:inline-block;margin:4px'>"
        f"<img src='{source}' alt='{escape(text)}' width='{width}' style='image-rendering:pixelated'>"
        f"<figcaption>{escape(text)}</figcaption></figure>"
    )


def encode_png(pixels: np.ndarray) -> bytes:
    """uint8 (height, width, 3) as the bytes of a PNG file."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _draw(checkpoint: Checkpoint) -> Iterable[np.ndarray]:
    """A picture each of the first classes, as many as the budget allows; none of latents."""
    import torch

    from kind_core.noise import start_noise
    from kind_core.sampling import sample_latents, to_pixels
    from kind_core.schedule import choose_sampling

    config = checkpoint.config
    dit, diffusion = config.dit, config.diffusion
    cost = count_flops(dit, convention="full").total * 2 * diffusion.steps
    count = min(_PICTURES, dit.num_classes, int(_BUDGET_FLOPS / cost))
    if count == 0 or dit.in_channels != 3 or config.autoencoder is not None:
        return []
    noise = torch.from_numpy(start_noise(0, (1, dit.in_channels, dit.sample_size, dit.sample_size)))
    labels = torch.arange(count)
    latents = sample_latents(
        checkpoint.model, diffusion, noise.repeat(count, 1, 1, 1), labels, labels, choose_sampling(diffusion)
    )
    return list(to_pixels(latents))
