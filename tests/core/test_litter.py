"""What file managers leave in a folder is nowhere read, and no folder is full of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kind_bench.results.importing import read_measured
from kind_core.files.litter import is_bare, is_hidden, is_litter
from kind_core.files.staging import folder_kind, staged
from kind_runtimes.bundle import list_files
from kind_runtimes.packs import find_packs


@pytest.mark.parametrize("name", ["._panda.pack", ".DS_Store", "Thumbs.db", "@eaDir", "__MACOSX", "Desktop.ini"])
def test_what_systems_leave_is_known(name: str) -> None:
    assert is_litter(name)
    assert is_hidden(name)


@pytest.mark.parametrize("name", ["panda.pack", "thumbs.png", "eaDir", "MACOSX", "_x"])
def test_a_users_files_are_not_hidden(name: str) -> None:
    assert not is_hidden(name)


def test_a_folder_of_litter_alone_is_empty_and_may_be_taken(tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.mkdir()
    (place / ".DS_Store").write_bytes(b"x")
    assert is_bare(place)
    with staged(place, folder_kind("a toy", lambda path: None, lambda name: False), force=True) as new:
        new.mkdir()
        (new / "file").write_bytes(b"y")
    assert not is_bare(place)


def test_bundles_packs_and_measurements_have_no_litter(tmp_path: Path) -> None:
    for name in ("packs/._koala.pack", "measured/._here.json", "measured/.DS_Store", ".DS_Store", "onnx/._step.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    assert find_packs(tmp_path) == {}
    assert list_files(tmp_path) == []
    assert read_measured(cast(Any, SimpleNamespace(path=tmp_path))) == ()
