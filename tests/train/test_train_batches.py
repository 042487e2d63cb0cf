"""What a step sees depends on its number alone; every epoch sees every photo once; dropped labels open no gate."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_training import make_config

from kind_train.config import TrainConfig
from kind_train.data.batches import Batch, draw_batch, step_generator

LABELS = torch.arange(10) % 3


def draw(config: TrainConfig, step: int, labels: torch.Tensor = LABELS) -> Batch:
    return draw_batch(labels, config, step, step_generator(config, step))


def test_every_epoch_is_a_permutation_of_its_own() -> None:
    config = make_config(Path("run"), batch_size=4)
    seen = torch.cat([draw(config, step).indices for step in range(5)])  # two epochs of ten, the third batch in both
    first, second = seen[:10], seen[10:]
    assert sorted(first.tolist()) == list(range(10)) == sorted(second.tolist())
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("batch_size", [1, 7, 25])
def test_any_batch_size_fits_any_data_set(batch_size: int) -> None:
    config = make_config(Path("run"), batch_size=batch_size)
    seen = torch.cat([draw(config, step).indices for step in range(50 // batch_size)])
    assert len(seen) == 50 // batch_size * batch_size
    for start in range(0, len(seen) - 9, 10):
        assert sorted(seen[start : start + 10].tolist()) == list(range(10))


def test_a_step_is_drawn_alike_each_time_and_steps_differ() -> None:
    config = make_config(Path("run"), batch_size=8)
    again, once, later = draw(config, 3), draw(config, 3), draw(config, 4)
    assert torch.equal(once.indices, again.indices)
    assert torch.equal(once.flipped, again.flipped)
    assert torch.equal(once.labels, again.labels)
    assert not torch.equal(once.indices, later.indices)
    assert not torch.equal(once.indices, draw(make_config(Path("run"), batch_size=8, seed=1), 3).indices)


def test_labels_count_in_the_classes_of_the_batch() -> None:
    config = make_config(Path("run"), batch_size=3, label_dropout=0.0)
    labels = torch.tensor([7, 7, 2, 5, 5, 5])
    for step in range(4):
        batch = draw(config, step, labels)
        assert batch.classes.tolist() == sorted(set(labels[batch.indices].tolist()))
        assert torch.equal(batch.classes[batch.labels], labels[batch.indices])


def test_the_asked_share_of_labels_is_dropped() -> None:
    config = make_config(Path("run"), batch_size=4000, label_dropout=0.1)
    batch = draw(config, 0)
    kept = batch.labels >= 0
    assert 0.08 < 1 - kept.float().mean().item() < 0.12
    assert torch.equal(batch.classes[batch.labels[kept]], LABELS[batch.indices[kept]])
    assert batch.labels[~kept].eq(-1).all()


def test_a_batch_whose_labels_are_all_dropped_has_no_class() -> None:
    batch = draw(make_config(Path("run"), label_dropout=1 - 1e-9), 0)
    assert batch.classes.tolist() == []
    assert batch.labels.tolist() == [-1] * 4


def test_half_of_the_photos_are_mirrored_where_that_is_on() -> None:
    flipped = draw(make_config(Path("run"), batch_size=4000), 0).flipped
    assert 0.45 < flipped.float().mean().item() < 0.55
    assert not draw(make_config(Path("run"), batch_size=4000, flip=False), 0).flipped.any()
