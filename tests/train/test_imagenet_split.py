"""The paper's split of ImageNet-1K, and the folders it makes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_training import encode, make_photos

from kind_core.errors import ConfigError, DataError
from kind_train.cli import main
from kind_train.data.imagenet import PRETRAIN, imagenet_classes, read_split, split_imagenet
from kind_train.data.photo_set import load_photos


def test_the_split_has_the_counts_of_the_paper() -> None:
    split = read_split()
    tasks = [classes for part, classes in split.items() if part != PRETRAIN]
    assert len(split[PRETRAIN]) == 150
    assert len(tasks) == 18
    assert (min(map(len, tasks)), max(map(len, tasks))) == (7, 35)
    everything = [one for classes in split.values() for one in classes]
    assert len(everything) == len({one.id for one in everything}) == 611
    assert sum(len(classes) for classes in tasks) == 461
    merged = [one for one in everything if one.members != (one.id,)]
    assert (len(merged), sum(len(one.members) for one in merged)) == (76, 465)


def test_every_class_of_imagenet_is_in_it_once() -> None:
    members = [member for classes in read_split().values() for one in classes for member in one.members]
    assert sorted(members) == sorted(wnid for wnid, _ in imagenet_classes())


def test_folder_names_are_file_names() -> None:
    names = [one.folder_name for classes in read_split().values() for one in classes]
    assert all(len(name) < 100 and "/" not in name and name[:1] == "n" for name in names)
    assert len(set(names)) == 611


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos a class, named as ImageNet's."""
    folder = tmp_path_factory.mktemp("imagenet")
    data = encode(make_photos(1).images[0], "JPEG")
    for wnid, _ in imagenet_classes():
        (folder / wnid).mkdir()
        (folder / wnid / f"{wnid}_1.JPEG").write_bytes(data)
        os.link(folder / wnid / f"{wnid}_1.JPEG", folder / wnid / f"{wnid}_2.JPEG")
        (folder / wnid / f"._{wnid}_1.JPEG").write_bytes(b"a fork of macOS")
    return folder


def test_photos_land_in_their_class(imagenet: Path, tmp_path: Path) -> None:
    counts = split_imagenet(imagenet, tmp_path / "split")
    assert sum(counts.values()) == 2000
    assert len(list((tmp_path / "split").iterdir())) == 19
    for part, classes in read_split().items():
        assert {folder.name for folder in (tmp_path / "split" / part).iterdir()} == {one.folder_name for one in classes}
        for one in classes:
            names = {file.name for file in (tmp_path / "split" / part / one.folder_name).iterdir()}
            assert names == {f"{member}_{i}.JPEG" for member in one.members for i in (1, 2)}
    photos = load_photos(tmp_path / "split" / "task-01", 8)
    assert [info.id for info in photos.classes] == sorted(one.id for one in read_split()["task-01"])
    assert len(photos) == counts["task-01"]


def test_a_part_can_be_asked_for(imagenet: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["imagenet-split", str(imagenet), str(tmp_path / "one"), "--part", "task-01"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("task-01  ")
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["task-01"]


def test_what_is_missing_is_named(imagenet: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown part 'task-19', expected one of pretrain, task-01"):
        split_imagenet(imagenet, tmp_path / "none", ["task-19"])
    (tmp_path / "partial").mkdir()
    with pytest.raises(DataError, match="has no folder n01514859"):
        split_imagenet(tmp_path / "partial", tmp_path / "none", ["pretrain"])
    assert not (tmp_path / "none").exists()
