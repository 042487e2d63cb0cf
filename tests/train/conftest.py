from __future__ import annotations

import pytest
from tiny_training import tiny_preset


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the tiny model, whatever preset is asked for."""
    for module in ("trainer", "session"):
        monkeypatch.setattr(f"kind_train.{module}.preset", tiny_preset)
