"""How alike the parts of a photo are to each other: a middle block learns it from a classifier's first stages.

REPA (https://arxiv.org/abs/2410.06940) holds what a block says of each place against what a classifier says. It is the
spatial structure that does the work (iREPA, https://arxiv.org/abs/2512.10794), so here the likenesses between places
are compared (VideoREPA, https://arxiv.org/abs/2505.23656): nothing is projected, and neither the model nor its state
gets another number.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kind_core.dit import DivertedTransformer
from kind_train.run.terms.perceptual import FirstStages

# Early on it shows the way; later it holds a model back (HASTE, https://arxiv.org/abs/2505.16792).
SHARE_OF_RUN = 0.5
_STAGE = 2  # of an eighth of the side that the classifier sees
_MARGIN = 0.1  # differences below it count for nothing
_EPS = 1e-6


class Relations:
    """Remembers what the middle block of `model` put out at its last pass, and compares it with photos."""

    def __init__(self, model: DivertedTransformer, stages: FirstStages) -> None:
        self._stages = stages
        self._side = model.config.sample_size // model.config.patch_size
        self._tokens: dict[int, Tensor] = {}
        remember(middle_block(model), self._tokens, 0)

    def __call__(self, photos: Tensor) -> Tensor:
        """photos (batch, 3, size, size) in [-1, 1], which the model just saw with noise -> (batch,), 0 to 2."""
        with torch.no_grad():
            seen = F.adaptive_avg_pool2d(self._stages(photos)[_STAGE], self._side)
            wanted = _relate(seen.flatten(2).transpose(1, 2))
        return F.relu((_relate(self._tokens[0].float()) - wanted).abs() - _MARGIN).mean((1, 2))


def middle_block(model: DivertedTransformer) -> nn.Module:
    """The block whose output learns: what comes after it is left to the picture."""
    return model.blocks[(model.config.depth - 1) // 2]


def _relate(tokens: Tensor) -> Tensor:
    """(batch, tokens, channels) -> cosines between what each token has beyond their mean, (batch, tokens, tokens)."""
    own = tokens - tokens.mean(1, keepdim=True)
    own = own / (own.square().sum(2, keepdim=True) + _EPS).sqrt()
    return own @ own.transpose(1, 2)


def remember(block: nn.Module, kept: dict[int, Tensor], index: int) -> None:
    """From now on `kept[index]` is what `block` put out last, (batch, tokens, hidden), with its gradient."""

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        kept[index] = output

    block.register_forward_hook(keep)
