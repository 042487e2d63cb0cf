"""Folder and Parquet give the same photos; what cannot be read is named, counted, and stops a strict run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import encode, make_photos, write_folder, write_parquet

from kind_core.class_ids import parse_class_name
from kind_core.errors import ClassNameError, DataError
from kind_train.data.photo_set import load_photos

NAMES = ["n02509815_lesser_panda", "n02510455_giant_panda", "n07749582_lemon"]
# photos drawn large and wide, so that cropping and resizing take part
WIDE = torch.randint(0, 256, (6, 3, 20, 31), generator=torch.Generator().manual_seed(0)).byte()
LABELS = [0, 0, 1, 1, 2, 2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, label in enumerate(LABELS):
        place = tmp_path / "folder" / NAMES[label]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.jpg").write_bytes(encode(WIDE[i], "JPEG"))
    return tmp_path / "folder"


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    file = tmp_path / "photos.parquet"
    write_parquet(file, [encode(image, "JPEG") for image in WIDE], LABELS, NAMES)
    return file


def test_folder_and_parquet_give_the_same_tensors(folder: Path, parquet: Path) -> None:
    one, other = load_photos(folder, 8), load_photos(parquet, 8)
    assert one.images.shape == (6, 3, 8, 8)
    assert torch.equal(one.images, other.images)
    assert one.labels.tolist() == other.labels.tolist() == LABELS
    assert one.classes == other.classes
    assert [info.id for info in one.classes] == ["n02509815", "n02510455", "n07749582"]
    assert one.images.float().std() > 10


def test_a_photo_of_the_right_size_comes_back_as_it_was(tmp_path: Path) -> None:
    photos = make_photos(5)
    write_folder(tmp_path / "photos", photos)
    loaded = load_photos(tmp_path / "photos", 8)
    order = photos.labels.argsort(stable=True)
    assert torch.equal(loaded.images, photos.images[order])
    unit = loaded.to_unit(torch.arange(5))
    assert unit.dtype == torch.float32
    torch.testing.assert_close((unit + 1) * 127.5, loaded.images.float())
    assert unit.min() >= -1
    assert unit.max() <= 1


def test_the_centre_square_is_what_is_kept(tmp_path: Path) -> None:
    wide = torch.zeros(3, 8, 24, dtype=torch.uint8)
    wide[0, :, 8:16] = 255
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "wide.png").write_bytes(encode(wide))
    loaded = load_photos(tmp_path, 8).images[0]
    assert torch.equal(loaded, wide[:, :, 8:16])


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_other_colour_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).convert(mode).save(tmp_path / "a" / "x.png")
    assert load_photos(tmp_path, 8).images.eq(255).all()


def test_classes_are_filtered_and_ordered_as_asked(folder: Path) -> None:
    everything = load_photos(folder, 8)
    chosen = load_photos(folder, 8, classes=["lemons", "panda"])
    assert [info.name for info in chosen.classes] == ["lemon", "giant panda"]
    assert chosen.labels.tolist() == [1, 1, 0, 0]
    assert torch.equal(chosen.images, everything.images[2:])


def test_an_unknown_class_says_what_the_data_holds(parquet: Path) -> None:
    with pytest.raises(ClassNameError, match="unknown class 'koala'") as caught:
        load_photos(parquet, 8, classes=["koala"])
    assert caught.value.hint == f"{parquet} holds lesser panda, giant panda, lemon"


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


BROKEN = {
    "a truncated JPEG": truncate(encode(WIDE[2], "JPEG")),
    "a truncated PNG": truncate(encode(WIDE[2])),
    "no image": b"not an image at all",
    "nothing": b"",
}


@pytest.mark.parametrize("what", BROKEN)
def test_an_unreadable_file_is_named_skipped_and_counted(folder: Path, what: str) -> None:
    expected = load_photos(folder, 8)
    broken = folder / NAMES[1] / "0_broken.jpg"
    broken.write_bytes(BROKEN[what])
    told: list[str] = []
    loaded = load_photos(folder, 8, tell=told.append)
    assert [one.name for one in loaded.skipped] == [str(broken)]
    assert told == [f"skipped unreadable image {broken}: {loaded.skipped[0].reason}", told[-1]]
    assert told[-1].startswith("1 unreadable images skipped: ")
    assert torch.equal(loaded.images, expected.images)
    assert torch.equal(loaded.labels, expected.labels)


@pytest.mark.parametrize("what", BROKEN)
def test_strict_stops_at_an_unreadable_file(folder: Path, what: str) -> None:
    broken = folder / NAMES[1] / "0_broken.jpg"
    broken.write_bytes(BROKEN[what])
    with pytest.raises(DataError, match="unreadable image") as caught:
        load_photos(folder, 8, strict=True)
    assert str(broken) in caught.value.message


def test_unreadable_rows_are_named_by_their_number(tmp_path: Path) -> None:
    images: list[Any] = [
        encode(WIDE[0]),
        BROKEN["a truncated JPEG"],
        {"bytes": None, "path": "x"},
        None,
        encode(WIDE[1]),
    ]
    write_parquet(tmp_path / "p.parquet", images, [0, 0, 0, 0, 1], ["a", "b"])
    told: list[str] = []
    loaded = load_photos(tmp_path / "p.parquet", 8, tell=told.append)
    assert [one.name for one in loaded.skipped] == ["p.parquet row 1", "p.parquet row 2", "p.parquet row 3"]
    assert told[-1] == (
        "3 unreadable images skipped: Truncated File Read (1); there is no such file (1); it is empty (1)"
    )
    assert loaded.labels.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"p\.parquet row 1"):
        load_photos(tmp_path / "p.parquet", 8, strict=True)


def test_plain_columns_without_names_are_read(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"label": [1, 0], "image": [encode(WIDE[0]), encode(WIDE[1])], "more": ["x", "y"]})
    pyarrow.parquet.write_table(table, tmp_path / "p.parquet")
    loaded = load_photos(tmp_path / "p.parquet", 8)
    assert [info.id for info in loaded.classes] == ["0", "1"]
    assert loaded.labels.tolist() == [1, 0]


def test_a_class_whose_images_are_all_unreadable_is_an_error(folder: Path) -> None:
    for file in (folder / NAMES[2]).iterdir():
        file.write_bytes(b"broken")
    with pytest.raises(DataError, match="no readable image of class 'lemon'"):
        load_photos(folder, 8)
    assert len(load_photos(folder, 8, classes=["panda"])) == 2


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"image": [b"x"]}, "has no column 'label', expected 'image' and 'label'"),
        ({"picture": [b"x"], "label": [0]}, "has no column 'image'"),
        ({"image": [1], "label": [0]}, "column 'image' holds int64, expected encoded images"),
        ({"image": [{"path": "x"}], "label": [0]}, "column 'image' holds struct"),
        ({"image": [b"x"], "label": [0.5]}, "column 'label' holds double, expected whole numbers or text"),
        ({"image": [b"x", b"y"], "label": [0, None]}, "row 1 has no label"),
        ({"image": [b"x", b"y"], "label": [0, -1]}, "row 1 has label -1, expected 0 to 0"),
        ({"image": [], "label": []}, "column 'image' holds null"),
    ],
)
def test_a_table_of_another_form_is_named(tmp_path: Path, columns: dict[str, list[Any]], words: str) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "p.parquet")
    with pytest.raises(DataError, match=words):
        load_photos(tmp_path / "p.parquet", 8)


def write_table(file: Path, metadata: bytes | None = None, **columns: Any) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table(columns)
    if metadata is not None:
        table = table.replace_schema_metadata({"huggingface": metadata})
    pyarrow.parquet.write_table(table, file)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "int64", "uint64", "dictionary"])
def test_labels_are_whole_numbers_of_any_width(tmp_path: Path, kind: str) -> None:
    import pyarrow

    labels = pyarrow.array([1, 0, 1], pyarrow.int64() if kind == "dictionary" else getattr(pyarrow, kind)())
    write_table(
        tmp_path / "p.parquet",
        image=[encode(one) for one in WIDE[:3]],
        label=labels.dictionary_encode() if kind == "dictionary" else labels,
    )
    assert load_photos(tmp_path / "p.parquet", 8).labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize("kind", ["string", "large_string"])
def test_labels_may_be_names(tmp_path: Path, kind: str) -> None:
    import pyarrow

    labels = pyarrow.array(["red mug", "cup", "red mug"], getattr(pyarrow, kind)())
    write_table(tmp_path / "p.parquet", image=[encode(one) for one in WIDE[:3]], label=labels)
    photos = load_photos(tmp_path / "p.parquet", 8)
    assert [info.name for info in photos.classes] == ["cup", "red mug"]
    assert photos.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize("kind", ["binary", "large_binary", "struct"])
def test_images_are_bytes_in_any_column(folder: Path, tmp_path: Path, kind: str) -> None:
    import pyarrow

    images: Any = [encode(one, "JPEG") for one in WIDE]
    if kind == "struct":
        fields = [("bytes", pyarrow.large_binary()), ("path", pyarrow.string()), ("more", pyarrow.int64())]
        images = pyarrow.array([{"bytes": one, "path": "/x.jpg", "more": 1} for one in images], pyarrow.struct(fields))
    else:
        images = pyarrow.array(images, getattr(pyarrow, kind)())
    write_table(tmp_path / "p.parquet", image=images, label=LABELS)
    assert torch.equal(load_photos(tmp_path / "p.parquet", 8).images, load_photos(folder, 8).images)


def test_rows_may_name_files_beside_the_table_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for file in ("set/a.png", "secret.png"):
        (tmp_path / file).write_bytes(encode(WIDE[0]))
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "secret.png")
    paths = ["a.png", "../secret.png", str(tmp_path / "secret.png"), "link.png", "no\0name", "/dev/zero"]
    write_parquet(tmp_path / "set" / "p.parquet", [{"bytes": None, "path": path} for path in paths], [0] * 6, ["x"])
    photos = load_photos(tmp_path / "set" / "p.parquet", 8)
    assert len(photos) == 1
    assert len(photos.skipped) == 5
    assert all("does not lie beside the Parquet file" in one.reason for one in photos.skipped)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (b"{not json", "its metadata 'huggingface' is not JSON"),
        (b"\xff\xfe{", "its metadata 'huggingface' is not JSON"),
        (b"[" * 100_000, "its metadata 'huggingface' is not JSON"),
        (b'{"info": {"features": {"label": {"names": "ab"}}}}', "the names of 'label' in its metadata are 'ab'"),
        (b'{"info": {"features": {"label": {"names": [1, 2]}}}}', r"the names of 'label' in its metadata are \[1, 2\]"),
        (b'{"info": {"features": {"label": {"names": []}}}}', r"the names of 'label' in its metadata are \[\]"),
    ],
)
def test_broken_metadata_is_named(tmp_path: Path, metadata: bytes, words: str) -> None:
    write_table(tmp_path / "p.parquet", metadata, image=[encode(WIDE[0])], label=[0])
    with pytest.raises(DataError, match=words):
        load_photos(tmp_path / "p.parquet", 8)


@pytest.mark.parametrize("metadata", [b"[]", b"{}", b'{"info": 3}', b'{"info": {"features": {"label": {}}}}'])
def test_metadata_without_names_gives_numbers(tmp_path: Path, metadata: bytes) -> None:
    write_table(tmp_path / "p.parquet", metadata, image=[encode(WIDE[0])], label=[0])
    assert [info.id for info in load_photos(tmp_path / "p.parquet", 8).classes] == ["0"]


def test_labels_of_one_name_are_told_apart(tmp_path: Path) -> None:
    write_parquet(tmp_path / "p.parquet", [encode(one) for one in WIDE[:3]], [0, 1, 2], ["crane", "lemon", "crane"])
    photos = load_photos(tmp_path / "p.parquet", 8)
    assert [info.name for info in photos.classes] == ["crane 0", "lemon", "crane 2"]
    assert len({info.id for info in photos.classes}) == 3


def test_a_label_beyond_all_classes_allocates_nothing(tmp_path: Path) -> None:
    write_table(tmp_path / "p.parquet", image=[encode(WIDE[0])], label=[10**15])
    with pytest.raises(DataError, match="has label 1000000000000000, expected numbers that count the classes"):
        load_photos(tmp_path / "p.parquet", 8)


def test_categories_of_text_are_named(tmp_path: Path) -> None:
    import pyarrow

    write_table(tmp_path / "p.parquet", image=[encode(WIDE[0])], label=pyarrow.array(["x"]).dictionary_encode())
    with pytest.raises(DataError, match=r"column 'label' holds dictionary.*expected whole numbers or plain text"):
        load_photos(tmp_path / "p.parquet", 8)


def test_a_label_beyond_the_names_is_not_dropped_in_silence(tmp_path: Path) -> None:
    write_parquet(tmp_path / "p.parquet", [encode(WIDE[0])] * 3, [0, 1, 2], ["a", "b"])
    with pytest.raises(DataError, match=r"p\.parquet row 2 has label 2, expected 0 to 1"):
        load_photos(tmp_path / "p.parquet", 8)


def test_an_empty_table_and_a_broken_one(tmp_path: Path, parquet: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([("image", pyarrow.binary()), ("label", pyarrow.int64())])
    pyarrow.parquet.write_table(schema.empty_table(), tmp_path / "empty.parquet")
    with pytest.raises(DataError, match="holds no rows"):
        load_photos(tmp_path / "empty.parquet", 8)
    whole = parquet.read_bytes()
    damaged = whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :]
    for content in (truncate(whole), b"", damaged):
        (tmp_path / "broken.parquet").write_bytes(content)
        with pytest.raises(DataError, match="is not a whole Parquet file") as caught:
            load_photos(tmp_path / "broken.parquet", 8)
        assert "\n" not in caught.value.message


def test_no_data_and_no_class_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data at"):
        load_photos(tmp_path / "none", 8)
    with pytest.raises(DataError, match="holds no class folders"):
        load_photos(tmp_path, 8)
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="holds no readable image"):
        load_photos(tmp_path, 8)


def test_progress_counts_every_image(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    load_photos(folder, 8, progress=lambda done, total: told.append((done, total)))
    assert told == [(i, 6) for i in range(1, 7)]


def test_selected_photos_keep_their_labels() -> None:
    photos = make_photos(6)
    chosen = photos.select(torch.tensor([4, 0]))
    assert chosen.labels.tolist() == [1, 0]
    assert torch.equal(chosen.images, photos.images[[4, 0]])


@pytest.mark.parametrize(
    ("name", "class_id", "names"),
    [
        ("n02510455_giant_panda", "n02510455", ("giant panda",)),
        ("n02510455 giant panda, panda bear", "n02510455", ("giant panda", "panda bear")),
        ("golden retriever", "golden_retriever", ("golden retriever",)),
        ("0", "0", ("0",)),
        ("Ærø!", "Ærø", ("Ærø!",)),
        ("___", "class", ("class",)),
    ],
)
def test_class_names(name: str, class_id: str, names: tuple[str, ...]) -> None:
    info = parse_class_name(name)
    assert (info.id, info.names) == (class_id, names)
