"""A PixArt whose block matrices are diverted: a DiT that attends to a caption, with one adaLN for all of its blocks.

Architecture: Chen et al., https://arxiv.org/abs/2310.00426, in the form of diffusers' `PixArtTransformer2DModel`,
which a model with one fixed gate equals. The six matrices of a DiT block are diverted (q, k, v and o of self-attention,
up and down of the MLP); what reads the caption serves every domain, so it belongs to the learngene.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kind_core.config import NORM_EPS, DiTConfig, TextConfig
from kind_core.dit import Attention, DivertedTransformer, Mlp, TimestepEmbedder, make_position_embedding, modulate
from kind_core.diverted import Tailor
from kind_core.tailors import TailorBank

# What diffusers adds to the score of a word that a mask leaves out.
MASKED = -10000.0


class TextProjection(nn.Module):
    """From the channels of the text encoder to those of the transformer."""

    def __init__(self, channels: int, hidden_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden_size)
        self.fc2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, text: Tensor) -> Tensor:
        """text (batch, words, channels) -> (batch, words, hidden)."""
        result: Tensor = self.fc2(F.gelu(self.fc1(text), approximate="tanh"))
        return result


class CrossAttention(nn.Module):
    """Multi-head attention of the patches to the words of a caption, over dense matrices."""

    def __init__(self, config: DiTConfig, text_channels: int) -> None:
        super().__init__()
        d = config.hidden_size
        self.num_heads = config.num_heads
        self.q, self.o = nn.Linear(d, d), nn.Linear(d, d)
        self.k, self.v = nn.Linear(text_channels, d), nn.Linear(text_channels, d)

    def forward(self, x: Tensor, text: Tensor, bias: Tensor) -> Tensor:
        """x (batch, tokens, hidden), text (batch, words, channels), bias (batch, 1, 1, words) -> like x."""
        q, k, v = (
            torch.unflatten(one, -1, (self.num_heads, -1)).transpose(1, 2)  # (batch, heads, tokens, head size)
            for one in (self.q(x), self.k(text), self.v(text))
        )
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        result: Tensor = self.o(y.transpose(1, 2).flatten(2))
        return result


class PixArtBlock(nn.Module):
    """A DiT block that also attends to the caption. What modulates it is `modulation`, its own, plus that of all."""

    def __init__(self, config: DiTConfig, text_channels: int) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.randn(6, config.hidden_size) / config.hidden_size**0.5)
        self.norm1 = nn.LayerNorm(config.hidden_size, elementwise_affine=False, eps=NORM_EPS)
        self.attn = Attention(config)
        self.cross = CrossAttention(config, text_channels)
        self.norm2 = nn.LayerNorm(config.hidden_size, elementwise_affine=False, eps=config.mlp_norm_eps)
        self.mlp = Mlp(config)

    def forward(
        self, x: Tensor, shared: Tensor, text: Tensor, bias: Tensor, tailors: dict[str, Tailor], prefix: str
    ) -> Tensor:
        """x (batch, tokens, hidden), shared (batch, 6, hidden), text and bias as in `CrossAttention` -> like x."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation + shared).unbind(1)
        x = x + gate1[:, None] * self.attn(modulate(self.norm1(x), shift1, scale1), tailors, f"{prefix}.attn")
        x = x + self.cross(x, text, bias)
        result: Tensor = x + gate2[:, None] * self.mlp(
            modulate(self.norm2(x), shift2, scale2), tailors, f"{prefix}.mlp"
        )
        return result


class PixArtFinal(nn.Module):
    """Modulated norm and a linear layer from tokens to patches."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.randn(2, config.hidden_size) / config.hidden_size**0.5)
        self.norm = nn.LayerNorm(config.hidden_size, elementwise_affine=False, eps=NORM_EPS)
        self.linear = nn.Linear(config.hidden_size, config.patch_size**2 * config.out_channels)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """x (batch, tokens, hidden), embedded (batch, hidden) -> (batch, tokens, patch * patch * channels)."""
        shift, scale = (self.modulation + embedded[:, None]).unbind(1)
        result: Tensor = self.linear(modulate(self.norm(x), shift, scale))
        return result


class KindPixArt(DivertedTransformer):
    """The decomposable PixArt. Gates open the tailors of domains, labels choose what a domain adds to the timestep.

    That is the tailor's label embedding; of a model that was only taken apart it is zero.
    """

    position_embedding: Tensor

    def __init__(self, config: DiTConfig, text: TextConfig) -> None:
        super().__init__(config)
        self.text = text
        d, p = config.hidden_size, config.patch_size
        text_channels = d if text.is_projected else text.channels
        self.patch_embedding = nn.Conv2d(config.in_channels, d, kernel_size=p, stride=p)
        self.timestep_embedder = TimestepEmbedder(d, 0)
        self.side_embedder = self.ratio_embedder = None
        if text.picture_side is not None:
            self.side_embedder, self.ratio_embedder = TimestepEmbedder(d // 3, 0), TimestepEmbedder(d // 3, 0)
        self.adaln = nn.Linear(d, 6 * d)
        self.text_projection = TextProjection(text.channels, d) if text.is_projected else nn.Identity()
        self.blocks = nn.ModuleList(PixArtBlock(config, text_channels) for _ in range(config.depth))
        self.final = PixArtFinal(config)
        self.tailors = TailorBank(config)
        with torch.no_grad():
            self.tailors.label_embeddings().zero_()
        position = make_position_embedding(config, text.interpolation_scale)
        self.register_buffer("position_embedding", position, persistent=False)

    def fresh(self, config: DiTConfig) -> Self:
        """A random model of this kind with another shape, which reads captions alike."""
        return type(self)(config, self.text)

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        labels: Tensor,
        gates: Tensor,
        text: Tensor,
        mask: Tensor,
        rows: Tensor | None = None,
    ) -> Tensor:
        """The network's prediction, (batch, out channels, size, size).

        latents (batch, channels, size, size); timesteps (batch,) in train timesteps; labels, gates and rows as
        `KindDiT` takes them, domains in place of classes; text (batch, words, channels) of the text encoder, of which
        mask (batch, words) says with 1 which are read.
        """
        tailors = self.tailors.open(gates, rows)
        embedded = self.embed_conditioning(timesteps, labels, rows)
        shared = self.adaln(F.silu(embedded)).unflatten(1, (6, -1))
        bias = ((1 - mask.to(latents.dtype)) * MASKED)[:, None, None]
        words = self.text_projection(text)
        x = self.patch_embedding(latents).flatten(2).transpose(1, 2) + self.position_embedding
        for i, block in enumerate(self.blocks):
            own = {name: tailor for name, tailor in tailors.items() if name.startswith(f"blocks.{i}.")}
            x = block(x, shared, words, bias, own, f"blocks.{i}")
        return self.unpatchify(self.final(x, embedded))

    def embed_conditioning(self, timesteps: Tensor, labels: Tensor, rows: Tensor | None = None) -> Tensor:
        """Timestep, size of the picture and domain, (batch, hidden), before SiLU."""
        embedded: Tensor = self.timestep_embedder(timesteps) + self._embed_labels(labels, rows)
        if self.side_embedder is None or self.ratio_embedder is None or self.text.picture_side is None:
            return embedded
        side = self.side_embedder(embedded.new_full((1,), self.text.picture_side))
        ratio = self.ratio_embedder(embedded.new_ones(1))  # pictures are square
        return embedded + torch.cat([side, side, ratio], dim=1)

    def _embed_labels(self, labels: Tensor, rows: Tensor | None) -> Tensor:
        """(batch, hidden); zero for the null label."""
        table = self.tailors.label_embeddings(rows)
        if labels.dtype != torch.long:
            return labels.to(table.dtype) @ table
        is_domain = (labels >= 0) & (labels < table.shape[0])
        return table[labels * is_domain] * is_domain[:, None]
