"""Fixtures that every package's tests share; what they are made of is in `tiny`."""

from __future__ import annotations

from pathlib import Path

import pytest

from kind_core.checkpoint import save_checkpoint
from kind_core.config import DiTConfig, ModelConfig
from kind_core.dit import KindDiT
from tiny import tiny_model, tiny_model_config


@pytest.fixture
def model() -> KindDiT:
    """A randomised tiny model, new for each test."""
    return tiny_model()


@pytest.fixture
def dit_config(model: KindDiT) -> DiTConfig:
    return model.config


@pytest.fixture
def model_config(dit_config: DiTConfig) -> ModelConfig:
    return tiny_model_config(dit_config)


@pytest.fixture
def checkpoint_path(tmp_path: Path, model: KindDiT, model_config: ModelConfig) -> Path:
    """The folder of `model` saved as a checkpoint."""
    path = tmp_path / "checkpoint"
    save_checkpoint(path, model_config, model)
    return path
