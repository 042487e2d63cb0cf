"""The numbers of an evaluation, on uint8 image arrays (N, H, W, 3) and what a classifier sees in them.

Importing this package loads nothing heavy; numpy comes with the first name, torch with the first evaluator.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kind_train.evaluate.classification import (
        AskedClassShare,
        OutputStatistics,
        measure_asked_class_share,
        measure_output_statistics,
    )
    from kind_train.evaluate.features import Classification, EfficientNetLite0, imagenet_index
    from kind_train.evaluate.frechet import FrechetComparison, compare_frechet, frechet_distance, real_floor
    from kind_train.evaluate.neighbours import CopyCheck, check_copying, find_nearest

_HOMES = {
    "AskedClassShare": "classification",
    "Classification": "features",
    "CopyCheck": "neighbours",
    "EfficientNetLite0": "features",
    "FrechetComparison": "frechet",
    "OutputStatistics": "classification",
    "check_copying": "neighbours",
    "compare_frechet": "frechet",
    "find_nearest": "neighbours",
    "frechet_distance": "frechet",
    "imagenet_index": "features",
    "measure_asked_class_share": "classification",
    "measure_output_statistics": "classification",
    "real_floor": "frechet",
}

__all__ = [
    "AskedClassShare",
    "Classification",
    "CopyCheck",
    "EfficientNetLite0",
    "FrechetComparison",
    "OutputStatistics",
    "check_copying",
    "compare_frechet",
    "find_nearest",
    "frechet_distance",
    "imagenet_index",
    "measure_asked_class_share",
    "measure_output_statistics",
    "real_floor",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kind_train.evaluate' has no attribute {name!r}")
    return getattr(import_module(f"kind_train.evaluate.{_HOMES[name]}"), name)
