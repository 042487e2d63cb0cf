"""What each preset is trained with where nothing else is asked for: under every option that is given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

DEFAULT_PRESET = "sample"
# Constant rate, as the paper pre-trains: 300K steps of 256 latents.
_PAPER: dict[str, object] = {
    "images": 256 * 300_000,
    "batch_size": 256,
    "learning_rate": 1e-4,
    "warmup_images": 0,
    "decay_fraction": 0.0,
    "ema_decay": 0.9999,
}
# What one word sets of a run, under everything that is given. `paper` clips and shrinks nothing, as DiT's code.
RECIPES: dict[str, dict[str, object]] = {
    "paper": {
        "preset": "kind-b/2",
        **_PAPER,
        "weight_decay": 0.0,
        "max_grad_norm": math.inf,
        "label_dropout": 0.1,
        "flip": True,
    }
}
# As the shipped samples were trained (see their model cards; the garments' photos were mirrored then); those of 64
# pixels as the guides train them.
PRESET_OPTIONS: dict[str, dict[str, float]] = {
    "sample": {
        "images": 590_000,
        "learning_rate": 6e-4,
        "warmup_images": 5_000,
        "decay_fraction": 0.3,
        "ema_decay": 0.9995,
    },
    "sample-64-cpu": {
        "images": 500_000,
        "learning_rate": 6e-4,
        "warmup_images": 5_000,
        "decay_fraction": 0.3,
        "ema_decay": 0.9995,
        "perceptual": 0.15,
    },
    "garments": {
        "images": 400_000,
        "batch_size": 16,
        "flip": False,  # shoes point left
        "learning_rate": 8e-4,
        "warmup_images": 4_000,
        "decay_fraction": 0.2,
        "ema_decay": 0.999,
    },
    "sample-64": {
        "images": 10_000_000,
        "batch_size": 256,
        "learning_rate": 4e-4,
        "warmup_images": 100_000,
        "decay_fraction": 0.3,
        "ema_decay": 0.9999,
        "save_every": 500_000,
        "sample_every": 1_000_000,
    },
}
_LATENTS = ("kind-s/2", "kind-b/2", "kind-l/2", "kind-xl/2", "dit-s/2", "dit-b/2", "dit-l/2", "dit-xl/2")
PRESETS = (*PRESET_OPTIONS, *(f"dit-{name}" for name in PRESET_OPTIONS), "kind-mobile", "kind-l-206", *_LATENTS)
# By these the preset of a checkpoint is told: ranks and classes are the user's own.
ARCHITECTURE = ("patch_size", "in_channels", "hidden_size", "depth", "num_heads")


def preset_options(options: Mapping[str, object]) -> dict[str, object]:
    """What the preset of these options is trained with; nothing where a base is adapted or a teacher distilled.

    Without a preset it is that of the architecture of `start_from`, and nothing where no preset has it.
    """
    if options.get("base") is not None or options.get("teacher") is not None:
        return {}
    name = options.get("preset")
    if name is None:
        name = DEFAULT_PRESET if options.get("start_from") is None else _find_preset(options["start_from"])
    if not isinstance(name, str):
        return {}  # unknown, or refused when the options are checked
    key = name.lower()
    if key.removeprefix("dit-") in PRESET_OPTIONS:
        implied, images = PRESET_OPTIONS[key.removeprefix("dit-")], options.get("images")
        # of fewer images the warm-up is a twentieth at most
        most = max(0, images // 20) if isinstance(images, int) else math.inf
        return {**implied, "warmup_images": min(implied["warmup_images"], most)}
    return dict(_PAPER) if key.startswith(("kind-", "dit-")) else {}


def _find_preset(start: object) -> str | None:
    from kind_core.checkpoint_config import read_config
    from kind_core.config import preset

    if not isinstance(start, str) or not Path(start).exists():
        return None
    dit = read_config(Path(start)).dit

    def is_alike(name: str) -> bool:
        return all(getattr(dit, field) == getattr(preset(name)[0], field) for field in ARCHITECTURE)

    return next((name for name in PRESET_OPTIONS if is_alike(name)), None)
