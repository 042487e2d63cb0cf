"""Training from the weights of a checkpoint: what it knows is taken over by class id, the rest starts at random."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import TINY_DIFFUSION, TINY_DIT, make_config, make_photos

from kind_core.checkpoint import save_checkpoint
from kind_core.classes import ClassInfo
from kind_core.config import ModelConfig
from kind_core.errors import ConfigError
from kind_train.trainer import Trainer
from tiny import tiny_model

pytestmark = pytest.mark.usefixtures("tiny")

# the second class of the photos first, and one that they do not have
_CLASSES = tuple(ClassInfo(id=f"class_{i}", names=(f"class {i}",)) for i in (1, 9, 0))


def _save(path: Path, dit: Any = TINY_DIT, diffusion: Any = TINY_DIFFUSION) -> Any:
    model = tiny_model(dit)
    save_checkpoint(path, ModelConfig(dit=dit, diffusion=diffusion, classes=_CLASSES), model)
    return model


def _start(tmp_path: Path) -> Trainer:
    config = make_config(tmp_path / "run", start_from=str(tmp_path / "start"))
    return Trainer(config, make_photos(), make_photos(seed=1))


def test_known_classes_and_the_learngene_are_taken_over(tmp_path: Path) -> None:
    source = _save(tmp_path / "start")
    trainer = _start(tmp_path)
    for name, tensor in source.learngene_state().items():
        assert torch.equal(trainer.model.state_dict()[name], tensor), name
    rows, given = trainer.model.tailors.weight, source.tailors.weight
    assert torch.equal(rows[0], given[2])
    assert torch.equal(rows[1], given[0])
    assert not torch.equal(rows[2], given[1])
    averaged = trainer.optimizer.averaged_state()
    assert torch.equal(averaged["tailors.weight"], rows)  # the average starts there too


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    _save(tmp_path / "start", dit=replace(TINY_DIT, learngene_rank=13))
    with pytest.raises(ConfigError, match="another architecture"):
        _start(tmp_path)


def test_another_objective_is_refused(tmp_path: Path) -> None:
    _save(tmp_path / "start", diffusion=replace(TINY_DIFFUSION, prediction_type="epsilon"))
    with pytest.raises(ConfigError, match="was trained with epsilon"):
        _start(tmp_path)
