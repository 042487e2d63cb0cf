"""Diversion training, adaptation and evaluation of KIND models; the command line is `kind-train`.

    result = fit_model(configure(data="photos", output="run"))

These names are what users may rely on; everything else may change. Importing the package loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from kind_train.config import TrainConfig
    from kind_train.data.photo_set import load_photos
    from kind_train.evaluate.run import EvaluationRequest
    from kind_train.fit import FitResult, fit_model
    from kind_train.options_file import configure
    from kind_train.start.convert import convert_checkpoint
    from kind_train.start.from_dit import InitRequest

__all__ = [
    "EvaluationRequest",
    "FitResult",
    "InitRequest",
    "TrainConfig",
    "configure",
    "convert_checkpoint",
    "fit_model",
    "load_photos",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["TrainConfig"],
        "data.photo_set": ["load_photos"],
        "evaluate.run": ["EvaluationRequest"],
        "fit": ["FitResult", "fit_model"],
        "options_file": ["configure"],
        "start.convert": ["convert_checkpoint"],
        "start.from_dit": ["InitRequest"],
    },
)
