"""Factors with orthonormal columns: they stay so, are written as plain ones, and a run of them resumes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_training import make_config, make_photos, tiny_preset

from kind_core.checkpoint import load_checkpoint
from kind_core.costs.methods import dense_twin
from kind_core.diverted import DivertedLinear
from kind_core.errors import ConfigError
from kind_train.run.trainer import Trainer
from tiny import tiny_batch

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kind_train.start.shape.preset", tiny_preset)


def start(output: Path, *, resume: bool = False, **options: object) -> Trainer:
    given = {"factors": "cayley", "ema_decay": 1e-6, "images": 24, **options}
    return Trainer(make_config(output, **given), make_photos(), make_photos(seed=1), resume=resume)


def deviation(factor: torch.Tensor) -> float:
    return float((factor.T @ factor - torch.eye(factor.shape[1])).abs().max().detach())


def test_columns_stay_orthonormal_and_the_checkpoint_is_plain(tmp_path: Path) -> None:
    trainer = start(tmp_path / "run")
    before = trainer.model.blocks[0].attn.q.U.detach().clone()  # type: ignore[union-attr]
    trainer.run()
    layers = [layer for layer in trainer.model.modules() if isinstance(layer, DivertedLinear)]
    assert len(layers) == 12
    assert all(deviation(factor) < 1e-4 for layer in layers for factor in (layer.U, layer.V))
    assert not torch.allclose(layers[0].U, before, atol=1e-3)
    written = load_checkpoint(tmp_path / "run" / "last").model
    given = (*tiny_batch(written.config, 3), torch.arange(3), torch.arange(3))
    with torch.no_grad():
        torch.testing.assert_close(written(*given), trainer.model(*given), rtol=1e-4, atol=1e-5)
    free = Trainer(make_config(tmp_path / "free"), make_photos(), make_photos(seed=1)).model
    assert deviation(free.blocks[0].attn.q.U) > 1e-2  # type: ignore[union-attr]


def test_a_run_resumes_where_it_was(tmp_path: Path) -> None:
    whole = start(tmp_path / "whole")
    whole.run()
    start(tmp_path / "half", images=12).run()
    resumed = start(tmp_path / "half", resume=True)
    assert resumed.step == 3
    resumed.run()
    for key, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value), key
    with pytest.raises(ConfigError, match="was trained with factors 'cayley', not"):
        start(tmp_path / "half", resume=True, factors="free")


def test_a_model_without_factors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dit, diffusion = tiny_preset("")
    monkeypatch.setattr("kind_train.start.shape.preset", lambda name: (dense_twin(dit), diffusion))
    with pytest.raises(ConfigError, match="factors is 'cayley', but the model is dense"):
        start(tmp_path / "run")
    with pytest.raises(ConfigError, match="factors is 'cayle', expected one of free, cayley"):
        make_config(tmp_path / "run", factors="cayle")
    with pytest.raises(ConfigError, match="factors is 'cayley', expected nothing where a base is adapted"):
        make_config(tmp_path / "run", factors="cayley", base="base")
