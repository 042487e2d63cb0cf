"""WebDataset shards and data sets of the Hub give the photos that a folder gives."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tiny_training import encode, make_photos, write_folder

from kind_core.cli import split_names
from kind_core.errors import ClassNameError, DataError, TargetError
from kind_train.data import PhotoSet, load_photos
from kind_train.sources import open_source

PHOTOS = make_photos(11)


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def write_shards(folder: Path, photos: PhotoSet = PHOTOS, size: int = 4) -> None:
    folder.mkdir()
    for start in range(0, len(photos), size):
        with tarfile.open(folder / f"part-{start // size:04d}.tar", "w") as archive:
            for i in range(start, min(start + size, len(photos))):
                add(archive, f"data/{i:04d}.seg.png", b"another picture of the sample")
                add(archive, f"data/{i:04d}.json", b"{}")
                add(archive, f"data/{i:04d}.png", encode(photos.images[i]))
                add(archive, f"data/{i:04d}.cls", str(int(photos.labels[i])).encode())
    (folder / "classes.txt").write_text("".join(f"{info.id}\n" for info in photos.classes))


@pytest.mark.parametrize("pattern", ["", "part-*.tar"])
def test_shards_give_the_photos_in_order(tmp_path: Path, pattern: str) -> None:
    write_shards(tmp_path / "shards")
    photos = load_photos(tmp_path / "shards" / pattern, 8)
    assert torch.equal(photos.images, PHOTOS.images)
    assert torch.equal(photos.labels, PHOTOS.labels)
    assert [info.id for info in photos.classes] == ["class_0", "class_1", "class_2"]
    some = load_photos(tmp_path / "shards", 8, classes=("class 2",))
    assert torch.equal(some.images, PHOTOS.images[PHOTOS.labels == 2])


def test_one_shard_without_names_has_numbers_for_classes(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", size=20)
    (tmp_path / "shards" / "classes.txt").unlink()
    photos = load_photos(tmp_path / "shards" / "part-0000.tar", 8)
    assert [info.id for info in photos.classes] == ["0", "1", "2"]
    assert torch.equal(photos.images, PHOTOS.images)


def test_shards_are_read_one_photo_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path / "shards")
    source = open_source(tmp_path / "shards")
    assert list(source.labels) == PHOTOS.labels.tolist()
    opened: list[str] = []
    real = tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda path, *rest: opened.append(Path(path).name) or real(path, *rest))
    entries = source.entries()
    next(entries)
    assert opened == ["part-0000.tar"]
    assert len(list(entries)) == 10
    assert len(opened) == 3


def test_a_broken_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards")
    file = tmp_path / "shards" / "part-0001.tar"
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"part-0001\.tar is not a whole tar file"):
        load_photos(tmp_path / "shards", 8)


@pytest.mark.parametrize(
    ("label", "words"), [(b"panda", "has a sample with .cls 'panda'"), (b"7", "has label 7, expected 0 to 2")]
)
def test_a_label_that_is_none_is_named(tmp_path: Path, label: bytes, words: str) -> None:
    write_shards(tmp_path / "shards")
    with tarfile.open(tmp_path / "shards" / "part-0009.tar", "w") as archive:
        add(archive, "x.png", encode(PHOTOS.images[0]))
        add(archive, "x.cls", label)
    with pytest.raises(DataError, match=words):
        load_photos(tmp_path / "shards", 8)


def test_shards_without_samples_are_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "empty.tar", "w") as archive:
        add(archive, "x.png", encode(PHOTOS.images[0]))
    with pytest.raises(DataError, match=r"holds no sample with an image and \.cls"):
        load_photos(tmp_path / "empty.tar", 8)


class FakeDatasets(ModuleType):
    """The few names of the `datasets` library that are used, on photos in memory."""

    class Image:
        def __init__(self, decode: bool = True) -> None:
            self.decode = decode

    class ClassLabel:
        names = ("class_0", "class_1", "class_2")

    class Rows:
        def __init__(self, module: FakeDatasets, is_decoded: bool = True) -> None:
            self.module, self.is_decoded = module, is_decoded
            self.features: dict[str, Any] = {"image": module.Image(), "label": module.ClassLabel()}

        def cast_column(self, name: str, feature: FakeDatasets.Image) -> FakeDatasets.Rows:
            assert name == "image"
            return FakeDatasets.Rows(self.module, feature.decode)

        def __getitem__(self, column: str) -> list[int]:
            assert column == "label"
            return PHOTOS.labels.tolist()

        def __iter__(self) -> Any:
            assert not self.is_decoded, "photos must not be decoded twice"
            for image, label in zip(PHOTOS.images, PHOTOS.labels.tolist(), strict=True):
                yield {"image": {"bytes": encode(image), "path": None}, "label": label}

    def __init__(self) -> None:
        super().__init__("datasets")
        self.asked: list[tuple[str, str]] = []

    def load_dataset(self, name: str, split: str) -> Rows:
        self.asked.append((name, split))
        if split == "none":
            raise ValueError("Unknown split 'none'.\nShould be one of ['train'].")
        return self.Rows(self)


def test_a_data_set_of_the_hub_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeDatasets()
    monkeypatch.setitem(sys.modules, "datasets", fake)
    photos = load_photos("hub:someone/photos", 8)
    assert torch.equal(photos.images, PHOTOS.images)
    assert torch.equal(photos.labels, PHOTOS.labels)
    assert len(load_photos("hub:someone/photos:test", 8, classes=("class_1",))) == 4
    assert fake.asked == [("someone/photos", "train"), ("someone/photos", "test")]
    with pytest.raises(DataError, match=r"cannot load hub:someone/photos:none: Unknown split 'none'\. Should be"):
        load_photos("hub:someone/photos:none", 8)


def test_without_the_library_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TargetError, match="'datasets', which is not installed"):
        load_photos("hub:someone/photos", 8)


def test_an_unknown_class_lists_those_of_the_source(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", PHOTOS)
    with pytest.raises(ClassNameError) as caught:
        open_source(tmp_path / "photos").choose(("zebra",))
    assert caught.value.hint == f"{tmp_path / 'photos'} holds class 0, class 1, class 2"


def _write_classes(path: Path, *names: str) -> Path:
    for name in names:
        (path / name).mkdir(parents=True)
        (path / name / "0.png").write_bytes(encode(PHOTOS.images[0]))
    return path


def test_classes_of_a_model_are_found_by_their_ids_alone(tmp_path: Path) -> None:
    classes = open_source(_write_classes(tmp_path / "train", "猫", "red mug")).classes
    held_out = open_source(_write_classes(tmp_path / "val", "red mug", "犬", "猫"))
    assert [held_out.classes[label].id for label in held_out.choose(classes)] == ["red_mug", "猫"]
    other = open_source(_write_classes(tmp_path / "other", "Red Mug", "猫"))
    with pytest.raises(ClassNameError, match=r"no class has the id 'red_mug' \(red mug\)") as caught:
        other.choose(classes)
    assert caught.value.hint == f"{tmp_path / 'other'} holds Red Mug (Red_Mug), 猫 (猫)"


def test_folders_that_are_one_class_are_refused_with_both_names(tmp_path: Path) -> None:
    folder = _write_classes(tmp_path, "n02510455_panda", "n02510455 giant panda")
    with pytest.raises(ClassNameError, match="'n02510455 giant panda' and 'n02510455_panda' are one class") as caught:
        open_source(folder)
    assert caught.value.message.startswith(f"{folder}: ")


def test_a_folder_with_a_comma_is_one_class_as_a_command_line_asks_for_it(tmp_path: Path) -> None:
    source = open_source(_write_classes(tmp_path, "goldfish", "tench, Tinca tinca"))
    for given in (("tench, Tinca tinca",), ('"tench, Tinca tinca"',), ("goldfish", "tench, Tinca tinca"), ("tench",)):
        assert source.choose(split_names(given))[-1:] == [1]
        assert len(source.choose(split_names(given))) == len(given)
