"""The decomposable DiT of KIND (ICML 2025): config, diverted layers, checkpoint, class names, sampler tables, counters.

Importing this package loads nothing heavy; torch comes with the first name that needs it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import lazy_loader

# onnxruntime reports its use to its maker since 1.29, unless this is set before it starts; who wants that sets 0
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from kind_core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from kind_core.classes import ClassInfo, resolve_class, resolve_classes
    from kind_core.config import DiffusionConfig, DiTConfig, ModelConfig, preset
    from kind_core.dit import KindDiT
    from kind_core.errors import KindError

__all__ = [
    "Checkpoint",
    "ClassInfo",
    "DiTConfig",
    "DiffusionConfig",
    "KindDiT",
    "KindError",
    "ModelConfig",
    "load_checkpoint",
    "preset",
    "resolve_class",
    "resolve_classes",
    "save_checkpoint",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checkpoint": ["Checkpoint", "load_checkpoint", "save_checkpoint"],
        "classes": ["ClassInfo", "resolve_class", "resolve_classes"],
        "config": ["DiTConfig", "DiffusionConfig", "ModelConfig", "preset"],
        "dit": ["KindDiT"],
        "errors": ["KindError"],
    },
)
