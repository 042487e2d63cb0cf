"""Tiny models that draw in few steps, as distillation leaves them: random, so that every part shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kind_core.checkpoint import save_checkpoint
from kind_core.config import ModelConfig
from kind_core.samplers import FIRST_ORDER, Distillation
from tiny import tiny_config, tiny_model, tiny_model_config

STEPS = (4, 2, 1)
GUIDANCE = 3.0


def distilled_config(**architecture: Any) -> ModelConfig:
    """The config of a tiny student whose last block and final layer see where a step ends."""
    diffusion: dict[str, Any] = {
        "noise_schedule": "flow", "prediction_type": "sample", "sampler": FIRST_ORDER, "steps": STEPS[0],
        "distillation": Distillation(steps=STEPS, guidance_scale=GUIDANCE),
    }  # fmt: skip
    return tiny_model_config(tiny_config(**{"end_blocks": 1, **architecture}), **diffusion)


def save_distilled(path: Path, **architecture: Any) -> Path:
    """A checkpoint of such a model."""
    config = distilled_config(**architecture)
    save_checkpoint(path, config, tiny_model(config.dit))
    return path
