"""Photos stay held out whatever is added; every class keeps one to train on, and some of it are held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_training import make_photos

from kind_core.errors import CheckpointError, ConfigError, DataError
from kind_train.data.photo_set import PhotoSet
from kind_train.data.training_set import SplitRecord, describe_overlap, read_split, split_and_record, split_photos


def join(*sets: PhotoSet) -> PhotoSet:
    return replace(
        sets[0], images=torch.cat([one.images for one in sets]), labels=torch.cat([one.labels for one in sets])
    )


def of_classes(*counts: int, seed: int = 0) -> PhotoSet:
    """`counts` photos of each class, all different."""
    photos = make_photos(sum(counts), num_classes=len(counts), seed=seed)
    return replace(photos, labels=torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)))


def test_a_split_parts_the_photos_the_same_way_each_time() -> None:
    photos = make_photos(400)
    train, held_out = split_photos(photos, 0.25, seed=3)
    assert sorted(train.digests() + held_out.digests()) == sorted(photos.digests())
    assert 70 <= len(held_out) <= 130
    assert torch.equal(split_photos(photos, 0.25, seed=3)[1].images, held_out.images)
    assert not torch.equal(split_photos(photos, 0.25, seed=4)[1].images, held_out.images)


def test_the_order_of_the_photos_changes_nothing() -> None:
    photos = make_photos(50)
    shuffled = photos.select(torch.randperm(50, generator=torch.Generator().manual_seed(0)))
    held_out, again = (split_photos(one, 0.2, seed=0)[1] for one in (photos, shuffled))
    assert set(held_out.digests()) == set(again.digests())


def test_photos_that_are_on_both_sides_are_told() -> None:
    photos, others = make_photos(20), make_photos(5, seed=1)
    assert describe_overlap(photos, others) is None
    both = join(others, photos.select(torch.tensor([4, 7])))
    told = describe_overlap(photos, both)
    assert told is not None
    assert told.startswith("2 of the 7 photos of --val-data are in --data too, such as photo 6, of class 'class 1':")
    named = replace(both, names=tuple("abcdefg")).select(torch.tensor([0, 6]))
    assert "1 of the 2 photos of --val-data are in --data too, such as g: " in str(describe_overlap(photos, named))


@pytest.mark.parametrize("seed", range(20))
def test_added_photos_move_no_other(seed: int) -> None:
    old, new = of_classes(12, 30, 2, seed=seed), of_classes(9, 20, 5, seed=100 + seed)
    train, held_out, record = split_and_record(old, 0.1, seed)
    train_then, held_out_then = split_photos(join(new, old), 0.1, seed, record)
    assert set(train.digests()) <= set(train_then.digests())
    assert set(held_out.digests()) <= set(held_out_then.digests())
    # and when some are taken away
    train_then, held_out_then = split_photos(join(old.select(torch.arange(5, 44)), new), 0.1, seed, record)
    assert not set(train.digests()) & set(held_out_then.digests())
    assert not set(held_out.digests()) & set(train_then.digests())


@pytest.mark.parametrize("seed", range(30))
def test_every_class_keeps_photos_to_train_on_and_holds_out_what_is_due(seed: int) -> None:
    photos = of_classes(60, 2, 1, 10, seed=seed)
    train, held_out = split_photos(photos, 0.3, seed)
    assert set(train.labels.tolist()) == {0, 1, 2, 3}
    assert {0, 1, 3} <= set(held_out.labels.tolist())


@pytest.mark.parametrize(("counts", "expected"), [((2,), 1), ((3,), 1), ((1, 2), 1), ((2, 2, 2), 1), ((1, 1, 3), 1)])
def test_tiny_sets_hold_out_one(counts: tuple[int, ...], expected: int) -> None:
    for seed in range(10):
        train, held_out = split_photos(of_classes(*counts, seed=seed), 1e-9, seed)
        assert len(held_out) == expected
        assert set(train.labels.tolist()) == set(range(len(counts)))


@pytest.mark.parametrize("counts", [(1,), (1, 1, 1)])
def test_photos_alone_in_their_class_cannot_be_held_out(counts: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="no class has two different photos of its own") as caught:
        split_photos(of_classes(*counts), 0.05, seed=0)
    assert "--val-fraction 0" in caught.value.hint
    train, held_out = split_photos(of_classes(*counts), 0.0, seed=0)
    assert (len(train), len(held_out)) == (len(counts), 0)


def test_copies_of_a_photo_lie_on_one_side() -> None:
    photos = make_photos(40)
    other_class = replace(photos, labels=(photos.labels + 1) % 3)
    train, held_out = split_photos(join(photos, photos, other_class), 0.3, seed=1)
    assert not set(train.digests()) & set(held_out.digests())
    pair = join(of_classes(1), of_classes(1))
    with pytest.raises(DataError, match="no photo can be held out"):
        split_photos(pair, 0.5, seed=0)


def test_a_photo_of_two_classes_leaves_neither_empty() -> None:
    photos = of_classes(1, 2)
    both = replace(photos, images=photos.images[torch.tensor([1, 1, 2])])  # class 0 has a photo of class 1 alone
    for seed in range(10):
        train, held_out = split_photos(both, 0.5, seed)
        assert set(train.labels.tolist()) == {0, 1}
        assert len(held_out) == 1


def test_nothing_that_was_trained_on_replaces_lost_held_out_photos() -> None:
    photos = make_photos(30)
    train, _, record = split_and_record(photos, 0.1, 0)
    rest, held_out = split_photos(train, 0.1, 0, record)
    assert (len(rest), len(held_out)) == (len(train), 0)


def test_a_run_remembers_its_split(tmp_path: Path) -> None:
    import json

    assert read_split(tmp_path, 0.1) is None
    record = SplitRecord(fraction=0.1, seed=3, photos=7, moved={"ab": True})
    (tmp_path / "held_out.json").write_text(json.dumps(record.to_dict()))
    assert read_split(tmp_path, 0.1) == record
    with pytest.raises(ConfigError, match=r"held out 0\.1 of its photos, not 0\.2") as caught:
        read_split(tmp_path, 0.2)
    assert "--val-fraction 0.1" in caught.value.hint


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format_version": 2}', '{"format_version": 1, "val_fraction": 0.1, "moved": {"a": 1}}']
)
def test_a_broken_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "held_out.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"held_out\.json"):
        read_split(tmp_path, 0.1)
