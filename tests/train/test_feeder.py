"""Reading ahead gives the same feeds as reading in turn."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from tiny_training import make_config, make_photos
from torch import Tensor

from kind_train.data.batches import Feeder
from kind_train.data.photo_set import PhotoSet


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A device that is fed as a GPU is, where there may be none."""
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    return torch.device("cuda")


def test_a_thread_reads_the_next_batches(tmp_path: Path, gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, config = make_photos(11), make_config(tmp_path)
    readers: list[str] = []
    real = PhotoSet.read

    def read(self: PhotoSet, *args: Tensor) -> Tensor:
        readers.append(threading.current_thread().name)
        return real(self, *args)

    monkeypatch.setattr(PhotoSet, "read", read)
    share = slice(1, 3)
    ahead, in_turn = (Feeder(photos, config, share, device) for device in (gpu, torch.device("cpu")))
    for step in (0, 1, 2, 7, 8, config.num_steps - 1):  # a resumed run starts somewhere
        one, other = ahead.take(step), in_turn.take(step)
        assert torch.equal(one.photos, other.photos)
        assert one.photos.shape == (2, 3, 8, 8)
        assert torch.equal(one.batch.labels, other.batch.labels)
        assert torch.equal(one.generator.get_state(), other.generator.get_state())
    assert {name for name in readers if name.startswith("photos")}
    assert len(ahead._coming) <= 5  # what was read for steps that never came


def test_an_error_of_the_thread_reaches_the_run(tmp_path: Path, gpu: torch.device) -> None:
    photos = make_photos(11)
    broken = PhotoSet(images=photos.images[:2], labels=photos.labels, classes=photos.classes)
    with pytest.raises(IndexError):
        Feeder(broken, make_config(tmp_path), slice(None), gpu).take(0)
