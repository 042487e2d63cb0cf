from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mean_judge import Means
from tiny_training import TINY_DIFFUSION, TINY_DIT, make_photos, tiny_preset, write_folder

from kind_core.checkpoint import save_checkpoint
from kind_core.config import ModelConfig
from kind_core.costs.methods import dense_twin
from tiny import CLASSES, tiny_model


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    """Train the tiny model, whatever preset is asked for."""
    monkeypatch.setattr("kind_train.start.shape.preset", tiny_preset)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Run torch on one thread: on tensors this small, more of them only wait for each other."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    """Options of a decomposed and a dense base and of photos of three new classes, judged by `Means`."""
    for module in ("evaluate.judges", "benchmark.training"):
        monkeypatch.setattr(f"kind_train.{module}.open_judge", lambda classifier, device: Means())
    given: list[Any] = []
    for name, dit in (("checkpoint", TINY_DIT), ("dense", dense_twin(TINY_DIT))):
        config = ModelConfig(dit=dit, diffusion=TINY_DIFFUSION, classes=CLASSES[:3])
        save_checkpoint(tmp_path / name, config, tiny_model(dit, seed=5))
        given += [f"--{name}", tmp_path / name]
    write_folder(tmp_path / "photos", make_photos(24))
    return (*given, "--data", tmp_path / "photos")
