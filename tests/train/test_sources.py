"""WebDataset shards and data sets of the Hub give the photos that a folder gives."""

from __future__ import annotations

import codecs
import gzip
import io
import shutil
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tiny_training import encode, make_photos, write_folder, write_parquet

from kind_core.console.commands import split_names
from kind_core.errors import ClassNameError, DataError, TargetError
from kind_train.data.photo_set import PhotoSet, load_photos
from kind_train.data.sources import open_source
from kind_train.places import require_data

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


@pytest.mark.parametrize("pattern", ["", "part-*.tar", "part-{0000..0002}.tar", "part-0{00..00}{0,1,2}.*"])
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
    monkeypatch.setattr(tarfile, "open", lambda path, *a, **k: opened.append(Path(path).name) or real(path, *a, **k))
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


def test_a_shard_that_was_cut_off_anywhere_is_named(tmp_path: Path) -> None:
    """tarfile takes a cut between two members, or in a header, for the end: photos would be lost in silence."""
    write_shards(tmp_path / "shards", size=100)
    file = tmp_path / "shards" / "part-0000.tar"
    data = file.read_bytes()
    end = len(data.rstrip(b"\0"))
    for cut in range(512, end, 512):
        file.write_bytes(data[: cut + 256 * (cut % 1024 == 0)])
        with pytest.raises(
            DataError, match=r"part-0000\.tar is not a whole tar file: (it ends in the middle|unexpected)"
        ):
            open_source(file)
    for broken, words in ((b"x" * 512 + data[512:], "header"), (data[:2048] + b"x" * 512 + data[2560:], "header")):
        file.write_bytes(broken)
        with pytest.raises(DataError, match=words):
            open_source(file)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_shards_that_were_joined_are_named(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    write_shards(tmp_path / "shards")
    parts = [file.read_bytes() for file in sorted(tmp_path.glob("shards/*.tar"))]
    (tmp_path / "all.tar").write_bytes(pack(b"".join(parts)))
    with pytest.raises(DataError, match="another archive follows its end"):
        open_source(tmp_path / "all.tar")


def test_shards_of_two_folders_name_their_classes_alike(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_shards(tmp_path / folder)
    assert len(open_source(tmp_path / "{a,b}" / "*.tar").labels) == 22
    (tmp_path / "b" / "classes.txt").write_text("class_1\nclass_0\nclass_2\n")
    with pytest.raises(DataError, match=r"a.classes\.txt and .*b.classes\.txt name the classes differently"):
        open_source(tmp_path / "*" / "*.tar")


def test_a_pattern_finds_nothing_in_folders_of_tools(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards")
    for folder in (".trash", "@eaDir", "__MACOSX"):
        shutil.copytree(tmp_path / "shards", tmp_path / folder)
    assert len(open_source(tmp_path / "**" / "*.tar").labels) == 11
    assert len(open_source(tmp_path / ".trash" / "*.tar").labels) == 11


@pytest.mark.parametrize("suffix", ["tar", "parquet"])
def test_photos_beside_shards_and_tables_are_told(tmp_path: Path, suffix: str) -> None:
    if suffix == "tar":
        write_shards(tmp_path / "data")
    else:
        write_parts(tmp_path / "data", {"a.parquet": range(11)})
    first = min((tmp_path / "data").glob(f"*.{suffix}"))
    assert open_source(tmp_path / "data").notes == ()
    (tmp_path / "data" / "cat").mkdir()
    (tmp_path / "data" / "1.png").write_bytes(encode(PHOTOS.images[0]))
    expected = (
        f"left out 2 such as {tmp_path / 'data' / '1.png'}: it lies beside {first.name}; give --data one or the other"
    )
    assert open_source(tmp_path / "data").notes == (expected,)


def test_what_braces_name_is_all_there(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards")
    with pytest.raises(DataError, match=r"there is no .*part-0003\.tar, but 3 of the 4 files that .* names"):
        open_source(tmp_path / "shards" / "part-{0000..0003}.tar")
    with pytest.raises(DataError, match="no data at"):
        open_source(tmp_path / "shards" / "none-{0..3}.tar")
    with pytest.raises(DataError, match=r"\{0\.\.999999999\} names 1000000000 files"):
        open_source(tmp_path / "shards" / "part-{0..999999999}.tar")


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz"])
def test_compressed_shards_are_read(tmp_path: Path, suffix: str) -> None:
    write_shards(tmp_path / "shards", size=20)
    file = tmp_path / "shards" / "part-0000.tar"
    file.with_name(f"a{suffix}").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    assert torch.equal(load_photos(tmp_path / "shards", 8).images, PHOTOS.images)


EDITORS: list[Callable[[str], bytes]] = [
    lambda text: text.encode("utf-8-sig"),
    lambda text: text.replace("\n", "\r\n").encode(),
    lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
    lambda text: codecs.BOM_UTF16_LE + text.replace("\n", "\r\n").encode("utf-16-le"),
    lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    lambda text: text.replace("\n", "\r").encode(),
    lambda text: text.replace("\n", " \n").encode() + b"\n\n",
]


@pytest.mark.parametrize("write", EDITORS)
def test_labels_and_class_lists_are_read_as_editors_write_them(tmp_path: Path, write: Callable[[str], bytes]) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for i in range(2):
            add(archive, f"{i}.cls", write(f"{i}\n"))
            add(archive, f"{i}.png", encode(PHOTOS.images[i]))
    (tmp_path / "classes.txt").write_bytes(write("Katze\nKüken\n"))
    photos = load_photos(tmp_path / "a.tar", 8)
    assert [info.name for info in photos.classes] == ["Katze", "Küken"]
    assert photos.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a\n\nb\n", r"classes\.txt names no class in line 2"),
        (b"", r"classes\.txt names no class in line 1"),
        (b"\xff\xfea\0\n", r"classes\.txt is no text"),
        (b"K\xfcken\nb\n", r"classes\.txt is no text"),
        ("Küken\nb".encode("utf-16-le"), r"classes\.txt is no text"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n",
            r"classes\.txt: it is a Git LFS pointer",
        ),
    ],
)
def test_a_class_list_that_is_none_is_named(tmp_path: Path, data: bytes, words: str) -> None:
    write_shards(tmp_path / "shards")
    (tmp_path / "shards" / "classes.txt").write_bytes(data)
    with pytest.raises(DataError, match=words):
        load_photos(tmp_path / "shards", 8)


@pytest.mark.parametrize("label", ["²".encode(), b"1e3", b"9" * 40, b"", b"\xff\xfe0", b"1 2", b"0" * 5000])
def test_a_label_that_is_no_number_is_named(tmp_path: Path, label: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "x.png", encode(PHOTOS.images[0]))
        add(archive, "x.cls", label)
    with pytest.raises(DataError, match=r"has a sample with \.cls .* expected a whole number: x"):
        load_photos(tmp_path / "a.tar", 8)


def test_samples_that_are_not_whole_are_told(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("1.png", "1.cls", "2.png", "3.cls", "3.heic", "._4.png", "._4.cls", "__MACOSX/5.png", "6.cls"):
            add(archive, name, b"0" if name.endswith("cls") else encode(PHOTOS.images[0]))
    told: list[str] = []
    assert len(load_photos(tmp_path / "a.tar", 8, tell=told.append)) == 1
    place = tmp_path / "a.tar"
    assert told == [
        f"left out in {place}: 1 samples without .cls",
        f"left out in {place}: 1 samples without an image that is read, but with .heic",
        f"left out in {place}: 1 samples without an image that is read",
    ]


def huge_member(size: int) -> bytes:
    """A member that claims to be larger than any photo."""
    info = tarfile.TarInfo("x.png")
    info.size = size
    return info.tobuf() + encode(PHOTOS.images[0]).ljust(1024, b"\0")


@pytest.mark.parametrize("data", [b"", b"\0" * 1024, b"x" * 2000, huge_member(1 << 40), encode(PHOTOS.images[0])])
def test_what_is_no_tar_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.tar (is not a whole tar file|holds no sample)"):
        load_photos(tmp_path / "a.tar", 8)


def write_parts(folder: Path, parts: dict[str, range], names: Sequence[str] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in parts.items():
        images = [encode(PHOTOS.images[i]) for i in rows]
        write_parquet(folder / name, images, [int(PHOTOS.labels[i]) for i in rows], names)


NAMES = [info.id for info in PHOTOS.classes]
PARTS = {"train-00000-of-00002.parquet": range(5), "train-00001-of-00002.parquet": range(5, 11)}


@pytest.mark.parametrize("given", ["", "data", "data/train-*.parquet", "d*/*.parquet"])
def test_parquet_in_several_files_is_read_as_one(tmp_path: Path, given: str) -> None:
    """As the Hub stores a data set, and as it is cloned."""
    write_parts(tmp_path / "set" / "data", PARTS, NAMES)
    for name in ("README.md", ".gitattributes", ".git/config", "data/._train-00000-of-00002.parquet"):
        (tmp_path / "set" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "set" / name).write_text("x")
    photos = load_photos(tmp_path / "set" / given, 8)
    assert torch.equal(photos.images, PHOTOS.images)
    assert torch.equal(photos.labels, PHOTOS.labels)
    assert [info.id for info in photos.classes] == NAMES


@pytest.mark.parametrize("given", ["", "data", "data/train-*.parquet"])
def test_parts_that_are_not_there_are_told(tmp_path: Path, given: str) -> None:
    """Names say how many there are; some of a large data set may be meant."""
    place = tmp_path / "set" / "data"
    write_parts(place, {"train-00001-of-00004.parquet": range(5), "train-00003-of-00004.parquet": range(5, 11)}, NAMES)
    told: list[str] = []
    assert len(load_photos(tmp_path / "set" / given, 8, tell=told.append)) == 11
    assert told == [f"2 of the 4 parts of {place / 'train'} are not there, such as number 0"]


@pytest.mark.parametrize("folder", ["set [old]", "[ab]", "a*b", "set [old]/.kept"])
def test_a_folder_of_any_name_may_be_in_a_pattern(tmp_path: Path, folder: str) -> None:
    write_parts(tmp_path / folder / "data", PARTS, NAMES)
    write_parts(tmp_path / "a", {"train-00000-of-00001.parquet": range(3)}, NAMES)
    assert len(load_photos(tmp_path / folder / "d*" / "train-*.parquet", 8)) == 11


def test_no_path_is_not_the_folder_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parts(tmp_path, PARTS, NAMES)
    monkeypatch.chdir(tmp_path)
    assert len(load_photos(".", 8)) == 11
    with pytest.raises(DataError, match="no data at ''"):
        load_photos("", 8)
    with pytest.raises(DataError, match="no data at ''"):
        require_data("")


def test_files_of_another_split_are_not_mixed_in(tmp_path: Path) -> None:
    place = tmp_path / "set" / "data"
    write_parts(place, PARTS | {"test-00000-of-00001.parquet": range(3)}, NAMES)
    with pytest.raises(DataError, match="holds test, train, which are parts of a data set") as caught:
        load_photos(tmp_path / "set", 8)
    assert caught.value.hint == f"give --data '{place}/train*.parquet' --val-data '{place}/test*.parquet'"
    assert len(load_photos(place / "train*.parquet", 8)) == 11


def test_splits_in_folders_of_parquet_are_not_classes(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_parts(tmp_path / split, {"0000.parquet": range(3)}, NAMES)
    with pytest.raises(DataError, match="holds test, train, which are parts of a data set") as caught:
        load_photos(tmp_path, 8)
    assert caught.value.hint == f"give --data {tmp_path}/train --val-data {tmp_path}/test"


def test_files_whose_classes_differ_are_not_mixed(tmp_path: Path) -> None:
    write_parts(tmp_path, {"a.parquet": range(3)}, ["x", "y", "z"])
    write_parts(tmp_path, {"b.parquet": range(3)}, ["x", "z", "y"])
    with pytest.raises(DataError, match=r"a\.parquet and b\.parquet name their classes differently"):
        load_photos(tmp_path, 8)


def test_two_kinds_of_files_are_not_mixed(tmp_path: Path) -> None:
    write_shards(tmp_path / "data")
    write_parts(tmp_path / "data", {"a.parquet": range(3)})
    with pytest.raises(DataError, match="holds Parquet files and shards"):
        load_photos(tmp_path / "data", 8)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("photos.zip", b"PK\3\4", "is an archive"),
        ("photo.jpg", b"", "is one photo"),
        ("notes.txt", b"x", r"is neither a folder of photos nor a \.parquet or \.tar file"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
    ],
)
def test_another_file_is_named(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=words):
        load_photos(tmp_path / name, 8)


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
