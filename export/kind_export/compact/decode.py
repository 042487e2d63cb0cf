"""The autoencoder of a checkpoint as the decode program, in a precision that its activations fit.

The decoder of Stable Diffusion's AutoencoderKL is known to overflow in fp16. Whether a decoder does is measured on the
reference's own latents, before any target sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from kind_core.autoencoder import ImageDecoder

FP16_MAX = 65504.0
# What decoding is measured and verified at, in multiples of the latents: the second reaches beyond the clamp.
DECODE_GAINS = (1.0, 3.0)
# Other latents than the measured ones reach further.
MARGIN = 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredDecoder:
    """A decoder, the largest number that it computes with, and the largest square that a norm takes of one."""

    module: ImageDecoder
    peak: float
    peak_square: float

    @property
    def fits_fp16(self) -> bool:
        return max(self.peak, self.peak_square) * MARGIN < FP16_MAX


@torch.no_grad()
def measure_decoder(decoder: ImageDecoder, latents: Sequence[np.ndarray]) -> MeasuredDecoder:
    """Run `decoder` on `latents`, (1, channels, size, size) each, as they are and as far out as verification goes."""
    peaks = [0.0, 0.0]

    def watch(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        tensors = [t for t in (*inputs, output) if isinstance(t, Tensor)]
        peaks[0] = max(peaks[0], *(float(t.abs().max()) for t in tensors), 0.0)
        if isinstance(module, nn.GroupNorm):
            groups = torch.unflatten(tensors[0], 1, (module.num_groups, -1)).flatten(2)
            peaks[1] = max(peaks[1], float((groups - groups.mean(-1, keepdim=True)).square().max()))

    hooks = [module.register_forward_hook(watch) for module in decoder.modules()]
    try:
        for one in latents:
            for gain in DECODE_GAINS:
                decoder(torch.from_numpy((one * gain).astype(np.float32)))
    finally:
        for hook in hooks:
            hook.remove()
    return MeasuredDecoder(module=decoder, peak=peaks[0], peak_square=peaks[1])


class DecodeProgram(nn.Module):
    """Latents to an RGB image, 0 to `peak`, clamped; without a decoder they are pixels in [-1, 1] already.

    In `dtype` the decoder computes; latents and image are float32. `clamp`: as the operator, or by ReLUs.
    """

    def __init__(
        self,
        peak: float,
        decoder: ImageDecoder | None = None,
        dtype: torch.dtype = torch.float32,
        clamp: Literal["native", "relu"] = "native",
    ) -> None:
        super().__init__()
        self.clamp = clamp
        self.peak = peak
        self.dtype = dtype
        self.decoder = decoder

    def forward(self, latents: Tensor) -> Tensor:
        """(1, channels, size, size) -> (1, 3, height, width)."""
        images = latents if self.decoder is None else self.decoder(latents.to(self.dtype)).float()
        unit = images * 0.5 + 0.5
        return (unit.clamp(0, 1) if self.clamp == "native" else 1 - (1 - unit.relu()).relu()) * self.peak
