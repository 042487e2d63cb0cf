"""What of a step reads a caption: the words of both halves, and the attention of a block to them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kind_core.text.pixart import MASKED
from kind_export.compact.layers import Gelu, make_linear
from kind_export.compact.model import CaptionLayers, Layer

Words = tuple[Tensor, Tensor]  # embedded (halves, words, channels), and what is added to scores (halves, 1, words)


class CaptionReader(nn.Module):
    """forward(text, mask): text (2, words, channels) of the caption and of the null one, mask (2, words) with 1 for
    the words that are read."""

    def __init__(self, captions: CaptionLayers, gelu: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.layers = nn.ModuleList(make_linear(*layer) for layer in captions.projection)
        self.gelu = Gelu(gelu)

    def forward(self, text: Tensor, mask: Tensor) -> Words:
        words = text.to(self.dtype)
        if len(self.layers):
            first, second = self.layers
            words = second(self.gelu(first(words)))
        bias = ((1 - mask) * MASKED).to(self.dtype)
        return words, bias.reshape(bias.shape[0], 1, -1)


class CrossAttention(nn.Module):
    """Attention of the patches to the words, written out in three axes: other forms fall off XNNPACK."""

    def __init__(self, layers: dict[str, Layer], num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.layers = nn.ModuleDict({name: make_linear(*layer) for name, layer in layers.items()})

    def forward(self, x: Tensor, words: Words) -> Tensor:
        """x (halves, tokens, hidden) -> the same."""
        text, bias = words
        halves, tokens, hidden = x.shape
        q, k, v = (self._split_heads(self.layers[n](one)) for n, one in (("q", x), ("k", text), ("v", text)))
        scores = torch.bmm(q, k.transpose(1, 2)).reshape(halves, self.num_heads * tokens, -1) + bias
        weights = scores.softmax(dim=-1).reshape(halves * self.num_heads, tokens, -1)
        mixed = torch.bmm(weights, v).reshape(halves, self.num_heads, tokens, -1)
        result: Tensor = self.layers["o"](mixed.transpose(1, 2).reshape(halves, tokens, hidden))
        return result

    def _split_heads(self, x: Tensor) -> Tensor:
        # (halves, tokens, hidden) -> (halves * heads, tokens, head size)
        heads = x.reshape(x.shape[0], x.shape[1], self.num_heads, -1).transpose(1, 2)
        return heads.reshape(x.shape[0] * self.num_heads, x.shape[1], -1)
