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
from kind_train.run.trainer import Trainer
from kind_train.start.shape import pick_shape
from tiny import tiny_model

pytestmark = pytest.mark.usefixtures("tiny")

# the second class of the photos first, and one that they do not have
_CLASSES = tuple(ClassInfo(id=f"class_{i}", names=(f"class {i}",)) for i in (1, 9, 0))


def _save(path: Path, dit: Any = TINY_DIT, diffusion: Any = TINY_DIFFUSION) -> Any:
    model = tiny_model(dit)
    save_checkpoint(path, ModelConfig(dit=dit, diffusion=diffusion, classes=_CLASSES), model)
    return model


def _start(tmp_path: Path, **options: Any) -> Trainer:
    config = make_config(tmp_path / "run", start_from=str(tmp_path / "start"), **options)
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


def test_what_the_data_only_number_is_called_as_in_the_checkpoint(tmp_path: Path) -> None:
    """A DiT's labels are numbers to a data set, and their names stand in the checkpoint that init made of it."""
    _save(tmp_path / "start")
    numbered = (ClassInfo(id="class_1", names=("class_1",)), ClassInfo(id="class_0", names=("my own",)))
    more = ClassInfo(id="class_7", names=("class_7",))
    photos = replace(make_photos(), classes=(*numbered, more))
    config = make_config(tmp_path / "run", start_from=str(tmp_path / "start"))
    trainer = Trainer(config, photos, photos)
    assert [info.name for info in trainer.model_config.classes] == ["class 1", "my own", "class_7"]
    assert pick_shape(config).describe_new(photos.classes) == (
        "1 of the 3 classes start at random, such as 'class_7' (class_7): the checkpoint has the ids class_1, class_9, "
        "class_0; call the data's classes so to train them on"
    )
    assert pick_shape(config).describe_new(numbered) is None


def test_the_shape_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    """Its sizes, and what only a converted model has, where no preset is named."""
    dit = replace(TINY_DIT, learngene_rank=13, mlp_norm_eps=1e-5)
    _save(tmp_path / "start", dit=dit, diffusion=replace(TINY_DIFFUSION, prediction_type="epsilon"))
    trainer = _start(tmp_path)
    assert trainer.model_config.dit == replace(dit, num_classes=3)
    assert trainer.model_config.diffusion.prediction_type == "epsilon"


def test_what_a_converted_model_alone_has_goes_with_its_preset(tmp_path: Path) -> None:
    _save(tmp_path / "start", dit=replace(TINY_DIT, mlp_norm_eps=1e-5))
    assert _start(tmp_path, preset="tiny").model_config.dit.mlp_norm_eps == 1e-5


@pytest.mark.parametrize(("field", "value"), [("learngene_rank", 13), ("tailor_rank", 3), ("num_heads", 1)])
def test_a_named_preset_of_another_architecture_is_refused_with_the_field(
    tmp_path: Path, field: str, value: int
) -> None:
    _save(tmp_path / "start", dit=replace(TINY_DIT, **{field: value}))
    with pytest.raises(ConfigError, match=f"start has {field} {value}, preset 'tiny' has"):
        _start(tmp_path, preset="tiny")


def test_another_objective_is_refused(tmp_path: Path) -> None:
    _save(tmp_path / "start", diffusion=replace(TINY_DIFFUSION, prediction_type="epsilon"))
    with pytest.raises(ConfigError, match="has prediction_type epsilon, preset 'tiny' has sample"):
        _start(tmp_path, preset="tiny")
    with pytest.raises(ConfigError, match=r"noise_schedule is 'flow', but .* was trained on 'squaredcos_cap_v2'"):
        _start(tmp_path, noise_schedule="flow")


def test_gates_that_a_checkpoint_was_not_trained_with_are_named(tmp_path: Path) -> None:
    _save(tmp_path / "start")
    own = TINY_DIT.learngene_rank
    with pytest.raises(
        ConfigError, match=f"start has learngene_rank {own}, the model that is trained {own + 6}"
    ) as told:
        _start(tmp_path, diversion=False)
    assert "--no-diversion" in str(told.value.hint)
