"""Given: a model that also predicts a variance (learn_sigma).
Result: a final layer without those channels, which no sampler here reads. Other models are left as they are.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from kind_export.compact.model import CompactModel


def drop_sigma(model: CompactModel) -> CompactModel:
    """Keep the first `in_channels` outputs of each pixel of a patch."""
    channels = torch.arange(model.final_bias.numel()) % model.num_outputs
    kept = channels < model.config.in_channels
    return replace(model, final_weight=model.final_weight[kept], final_bias=model.final_bias[kept])
