"""Where an export starts: a name of the Hub is looked up with the classes that are asked for, and no others."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kind_core.classes import ClassInfo
from kind_export import source
from kind_export.cli import main
from kind_export.request import ExportRequest
from kind_export.source import open_source
from tiny import CLASSES


@pytest.fixture
def asked(checkpoint_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[Path, list[ClassInfo] | None]:
    """What the Hub was asked for: names and the classes with them; it has the tiny checkpoint under any name."""
    seen: dict[Path, list[ClassInfo] | None] = {}

    def find(path: Path, classes: Iterable[ClassInfo] | None = None, **options: Any) -> Path:
        seen[path] = None if classes is None else list(classes)
        return checkpoint_path

    monkeypatch.setattr(source, "find_checkpoint", find)
    monkeypatch.setattr(source, "find_config", find)
    return seen


def test_the_tailors_of_classes_and_blends_are_asked_for(asked: dict[Path, list[ClassInfo] | None]) -> None:
    name = Path("org/model@v1")
    request = ExportRequest(classes=("panda",), targets=("onnx",), checkpoint=name, blends=(("lemon", "seashore"),))
    opened = open_source(request)
    assert asked == {name: [CLASSES[index] for index in (0, 2, 3)]}
    assert opened.load([2]).config.classes == (CLASSES[2],)


def test_listing_classes_needs_the_config_alone(asked: dict[Path, list[ClassInfo] | None]) -> None:
    listed = CliRunner().invoke(main, ["classes", "--checkpoint", "org/model"])
    assert listed.stdout.splitlines()[2] == f"{CLASSES[2].id}  lemon"
    assert asked == {Path("org/model"): None}


def test_a_class_that_is_also_part_of_a_blend_is_asked_for_once(asked: dict[Path, list[ClassInfo] | None]) -> None:
    name = Path("org/model")
    open_source(
        ExportRequest(classes=("panda",), targets=("onnx",), checkpoint=name, blends=(("giant panda", "lemon"),))
    )
    assert asked == {name: [CLASSES[0], CLASSES[2]]}
