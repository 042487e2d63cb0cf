"""The decomposable DiT of KIND (ICML 2025): config, diverted layers, checkpoint, class names, sampler tables, counters.

Importing this package loads nothing heavy; torch comes with the first name that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kind_core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from kind_core.classes import ClassInfo, resolve_class, resolve_classes
    from kind_core.config import DiffusionConfig, DiTConfig, ModelConfig, preset
    from kind_core.dit import KindDiT
    from kind_core.errors import KindError

_HOMES = {
    "Checkpoint": "checkpoint",
    "ClassInfo": "classes",
    "DiTConfig": "config",
    "DiffusionConfig": "config",
    "KindDiT": "dit",
    "KindError": "errors",
    "ModelConfig": "config",
    "load_checkpoint": "checkpoint",
    "preset": "config",
    "resolve_class": "classes",
    "resolve_classes": "classes",
    "save_checkpoint": "checkpoint",
}

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kind_core' has no attribute {name!r}")
    return getattr(import_module(f"kind_core.{_HOMES[name]}"), name)
