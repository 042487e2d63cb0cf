"""What a block of a model puts out, kept for the terms of a loss that look inside."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def remember(block: nn.Module, kept: dict[int, Tensor], index: int) -> None:
    """From now on `kept[index]` is what `block` put out last, (batch, tokens, hidden), with its gradient."""

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        kept[index] = output

    block.register_forward_hook(keep)
