from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tiny_training import tiny_preset


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
