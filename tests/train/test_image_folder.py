"""Photos in folders: every photo is read once, what is left out is named, what is no data is nowhere read."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
from tiny_training import encode, make_photos, write_folder

from kind_core.errors import DataError
from kind_core.files.litter import is_hidden
from kind_train.data.photo_set import PhotoSet, load_photos

PHOTO = encode(make_photos(1).images[0])
OTHER = encode(make_photos(2).images[1])


def put(*files: Path, data: bytes = PHOTO) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def load(path: Path, **options: object) -> tuple[PhotoSet, list[str]]:
    told: list[str] = []
    return load_photos(path, 8, tell=told.append, **options), told  # type: ignore[arg-type]


def names(photos: PhotoSet) -> list[str]:
    return [info.name for info in photos.classes]


HIDDEN = (".ipynb_checkpoints", "@eaDir", "__MACOSX", ".thumbnails", "#recycle", "$RECYCLE.BIN", "lost+found")


@pytest.mark.parametrize("folder", HIDDEN)
def test_folders_of_tools_are_nowhere_read(tmp_path: Path, folder: str) -> None:
    put(tmp_path / "cat" / "1.png", tmp_path / folder / "2.png", tmp_path / "cat" / folder / "deep" / "3.png")
    photos, told = load(tmp_path, strict=True)
    assert (names(photos), len(photos), told) == (["cat"], 1, [])
    assert is_hidden(folder)


@pytest.mark.parametrize("file", ["._1.png", ".DS_Store", "Thumbs.db", "thumbs.db", "desktop.ini", ".hidden.png"])
def test_files_of_tools_are_nowhere_read(tmp_path: Path, file: str) -> None:
    put(tmp_path / "cat" / "1.png")
    put(tmp_path / file, tmp_path / "cat" / file, data=b"\0\5\x16\7")
    photos, told = load(tmp_path, strict=True)
    assert (len(photos), photos.skipped, told) == (1, (), [])


def test_what_is_left_out_is_named_by_suffix_and_number(tmp_path: Path) -> None:
    put(tmp_path / "cat" / "1.png", tmp_path / "cat" / "2.PNG", tmp_path / "2.png", tmp_path / "3.jpg")
    put(tmp_path / "cat" / "a.HEIC", tmp_path / "cat" / "b.heic", tmp_path / "cat" / "clip.mov", data=b"x")
    put(tmp_path / "cat" / "IMG_1", tmp_path / "labels.csv", data=b"x")
    photos, told = load(tmp_path)
    assert len(photos) == 2
    assert told == [
        f"left out in {tmp_path}: 2 .heic, 1 .csv, 1 .mov, 1 without suffix, of no format that is read; "
        "pip install pillow-heif to read .heic, or convert them",
        f"left out 2 such as {tmp_path / '2.png'}: it lies beside the class folders; "
        "a photo belongs into the one of its class",
    ]


def test_a_class_without_photos_says_what_it_holds(tmp_path: Path) -> None:
    put(tmp_path / "cat" / "1.png")
    put(tmp_path / "dog" / "1.heic", data=b"x")
    with pytest.raises(DataError, match=r"no readable image of class 'dog': it holds 1 \.heic, .* pillow-heif"):
        load_photos(tmp_path, 8)
    assert len(load_photos(tmp_path, 8, classes=["cat"])) == 1
    put(tmp_path / "flat" / "a.png", tmp_path / "flat" / "b.png")
    with pytest.raises(DataError, match=r"holds no class folders: left out 2 such as .*a\.png: it lies beside"):
        load_photos(tmp_path / "flat", 8)


def test_links_are_followed_and_each_folder_is_read_once(tmp_path: Path) -> None:
    data, store = tmp_path / "photos", tmp_path / "store"
    put(store / "cats" / "1.png", store / "cats" / "more" / "2.png", data / "dog" / "3.png")
    (data / "cat").symlink_to(store / "cats")
    (store / "cats" / "again").symlink_to(store / "cats" / "more")
    (store / "cats" / "self").symlink_to(store / "cats")
    (data / "dog" / "one.png").symlink_to(store / "cats" / "1.png")
    photos, told = load(data)
    assert photos.labels.tolist() == [0, 0, 1, 1]
    assert told == []


def test_a_folder_is_of_one_class(tmp_path: Path) -> None:
    put(tmp_path / "cat" / "1.png", tmp_path / "dog" / "2.png")
    (tmp_path / "katze").symlink_to(tmp_path / "cat")
    with pytest.raises(DataError, match=r"/cat and .*/katze are one folder, which cannot be of two classes"):
        load(tmp_path)


def test_links_up_and_links_to_nothing_are_named(tmp_path: Path) -> None:
    data = tmp_path / "photos"
    put(data / "cat" / "1.png", data / "dog" / "2.png", tmp_path / "beside.png")
    (data / "cat" / "up").symlink_to("..")
    (data / "dog" / "far").symlink_to(tmp_path)
    (data / "all").symlink_to(data)
    (data / "dog" / "gone.png").symlink_to("nothing.png")
    (data / "dog" / "round.png").symlink_to("round.png")
    photos, told = load(data)
    assert names(photos) == ["cat", "dog"]
    assert photos.labels.tolist() == [0, 1]
    assert told == [
        f"left out 3 such as {data / 'cat' / 'up'}: it leads up to a folder that it lies in",
        f"left out 2 such as {data / 'dog' / 'gone.png'}: it leads nowhere",
    ]


def test_only_regular_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "cat" / "1.png")
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    os.mkfifo(tmp_path / "pipe.parquet")
    (tmp_path / "cat" / "zero.png").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("cat/socket.png")
        photos, told = load(tmp_path)
    assert len(photos) == 1
    assert told[0].startswith(f"left out 4 such as {tmp_path / 'cat' / 'pipe.png'}: it is a pipe, a socket or a device")
    with pytest.raises(DataError, match="is no regular file"):
        load_photos(tmp_path / "pipe.parquet", 8)


def test_a_folder_that_cannot_be_looked_into_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "cat" / "1.png", tmp_path / "cat" / "closed" / "2.png")
    real = os.scandir

    def scan(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scan)  # root may look into every folder
    with pytest.raises(DataError, match=r"cannot read the folder .*closed: Permission denied"):
        load_photos(tmp_path, 8)


@pytest.mark.parametrize(
    ("folders", "options"),
    [
        (("train", "val"), "--data {}/train --val-data {}/val"),
        (("Training", "Testing"), "--data {}/Training --val-data {}/Testing"),
        (("test", "train", "validation"), "--data {}/train --val-data {}/validation"),
        (("train",), "--data {}/train"),
        (("annotations", "train", "valid"), "--data {}/train --val-data {}/valid"),
    ],
)
def test_parts_of_a_data_set_are_no_classes(tmp_path: Path, folders: tuple[str, ...], options: str) -> None:
    for folder in folders:
        if folder == "annotations":
            put(tmp_path / folder / "1.xml")
        else:
            put(tmp_path / folder / "cat" / "1.png", tmp_path / folder / "dog" / "2.png")
    with pytest.raises(DataError, match="parts of a data set, not classes") as caught:
        load_photos(tmp_path, 8)
    assert caught.value.hint == "give " + options.format(tmp_path, tmp_path)
    part = next(folder for folder in folders if folder.lower().startswith("train"))
    assert names(load_photos(tmp_path / part, 8)) == ["cat", "dog"]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    put(tmp_path / "bus" / "1.png", tmp_path / "train" / "2.png", tmp_path / "train" / "steam" / "3.png")
    assert names(load_photos(tmp_path, 8)) == ["bus", "train"]
    put(tmp_path / "alone" / "train" / "1.png")
    assert names(load_photos(tmp_path / "alone", 8)) == ["train"]


def test_a_folder_around_all_classes_is_told(tmp_path: Path) -> None:
    put(tmp_path / "pets" / "cat" / "1.png", tmp_path / "pets" / "dog" / "2.png")
    photos, told = load(tmp_path)
    assert names(photos) == ["pets"]
    assert told == [
        f"all photos are of one class, 'pets', in folders of it: cat, dog; if those are the classes, "
        f"give --data {tmp_path / 'pets'}"
    ]


def test_what_this_project_writes_is_no_data(tmp_path: Path) -> None:
    put(tmp_path / "cat" / "1.png")
    put(tmp_path / "run" / "samples" / "000.png", tmp_path / "cat" / "deep" / "samples" / "000.png")
    for run in (tmp_path / "run", tmp_path / "cat" / "deep"):
        put(run / "options.yaml", run / "state" / "state.json", data=b"")
    put(tmp_path / "cat.kind" / "preview.png")
    put(tmp_path / "cat.kind" / "manifest.json", tmp_path / "cat.kind" / "golden.safetensors", data=b"")
    put(tmp_path / "new" / "samples" / "000.png")
    photos, told = load(tmp_path, output=tmp_path / "cat" / ".." / "new")
    assert (names(photos), len(photos)) == (["cat"], 1)
    assert told == [
        f"left out 2 such as {tmp_path / 'cat' / 'deep'}: it is a run of this program",
        f"left out {tmp_path / 'cat.kind'}: it is a bundle of this program",
        f"left out {tmp_path / 'new'}: it is the output of this command",
    ]
    with pytest.raises(DataError, match="holds no photos: it is a run of this program"):
        load_photos(tmp_path / "run", 8)


def test_names_that_are_no_text_can_be_printed(tmp_path: Path) -> None:
    os.makedirs(os.fsencode(tmp_path) + b"/cat")
    for name in (b"/cat/caf\xe9.png", b"/cat/caf\xe8.png"):
        with open(os.fsencode(tmp_path) + name, "wb") as file:
            file.write(PHOTO if name.endswith(b"\xe9.png") else b"x")
    photos, _ = load(tmp_path)
    assert len(photos) == 1
    assert photos.skipped[0].name.encode() == f"{tmp_path}/cat/caf\\xe8.png".encode()


def test_photos_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    photos = make_photos(9)
    write_folder(tmp_path, photos)
    loaded = load_photos(tmp_path, 8)
    assert torch.equal(loaded.images, photos.images[photos.labels.argsort(stable=True)])


def test_a_deep_tree_is_no_recursion(tmp_path: Path) -> None:
    put(tmp_path.joinpath("cat", *["d"] * 600, "1.png"))
    assert len(load_photos(tmp_path, 8)) == 1
