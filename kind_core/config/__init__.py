"""Shapes and schedules of a model: what `config.json` of a checkpoint holds, checked once, and the presets."""

from kind_core.config.diffusion import FLOW_PREDICTIONS, NOISE_SCHEDULES, PREDICTION_TYPES, DiffusionConfig, on_schedule
from kind_core.config.dit import NORM_EPS, TIMESTEP_FREQUENCIES, DiTConfig
from kind_core.config.model import (
    FORMAT_VERSION,
    AutoencoderConfig,
    ModelConfig,
    Provenance,
    TextConfig,
    TrainingRecord,
)
from kind_core.config.presets import preset

__all__ = [
    "FLOW_PREDICTIONS",
    "FORMAT_VERSION",
    "NOISE_SCHEDULES",
    "NORM_EPS",
    "PREDICTION_TYPES",
    "TIMESTEP_FREQUENCIES",
    "AutoencoderConfig",
    "DiTConfig",
    "DiffusionConfig",
    "ModelConfig",
    "Provenance",
    "TextConfig",
    "TrainingRecord",
    "on_schedule",
    "preset",
]
