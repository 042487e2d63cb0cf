"""A file of tasks: what it may say, and what is refused before anything is trained on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_training import make_photos, write_folder

from kind_core.errors import ConfigError, DataError
from kind_train.benchmark.tasks import read_tasks


def read(folder: Path, text: str) -> list[tuple[str, tuple[str, ...]]]:
    """Name and classes of each task; `PHOTOS` stands for a folder of three classes."""
    photos = folder / "photos"
    if not photos.exists():
        write_folder(photos, make_photos(9))
    (folder / "tasks.yaml").write_text(text.replace("PHOTOS", str(photos)))
    return [(task.name, task.classes) for task in read_tasks(folder / "tasks.yaml", None, None, None)]


def test_tasks_are_named_and_take_some_classes_or_all(tmp_path: Path) -> None:
    text = "a: {data: PHOTOS}\nb_2: {data: PHOTOS, classes: class 1}\nc: {data: PHOTOS, classes: [class_2, class_0]}"
    every = ("class_0", "class_1", "class_2")
    assert read(tmp_path, text) == [("a", every), ("b_2", ("class_1",)), ("c", ("class_2", "class_0"))]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds nothing, expected lines that name tasks"),
        ("- a", "holds a list, expected lines that name tasks"),
        ("a: &x {data: PHOTOS}\nb: *x", r"has an alias, \*name"),
        (f"a: {'[' * 5000}", "is nested too deeply"),
        ("a: null", "'a' is no task"),
        ("a: {data: PHOTOS, photos: 3}", "'a' is no task"),
        ("../a: {data: PHOTOS}", r"'\.\./a' is no name of a task"),
        ("1: {data: PHOTOS}", "1 is no name of a task"),
        (f"{'n' * 300}: {{data: PHOTOS}}", "is no name of a task, expected letters and digits"),
        ("A: {data: PHOTOS}\na: {data: PHOTOS}", "tasks 'A' and 'a' are one folder on Windows and macOS"),
        ("a: {data: [PHOTOS]}", "task 'a' has a value that is no text"),
        ("a: {data: PHOTOS, val_data: 3}", "task 'a' has a value that is no text"),
        ("a: {data: PHOTOS, classes: 3}", "task 'a' has a value that is no text"),
        ("a: {data: PHOTOS, classes: [null]}", "task 'a' has a value that is no text"),
    ],
)
def test_what_is_no_task_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        read(tmp_path, text)
    assert "\n" not in caught.value.message


def test_a_task_without_a_path_has_no_photos(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data at ''"):
        read(tmp_path, "a: {data: ''}")
