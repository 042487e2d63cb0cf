"""A bundle opens only when it is whole and untouched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kind_core.errors import BundleError
from kind_core.files.hashing import hash_file
from kind_runtimes.bundle import list_files, open_bundle, read_manifest
from small_bundles import write_manifest

FILES = [
    "coreml/step.mlpackage/Manifest.json",
    "coreml/step.mlpackage/Data/com.apple.CoreML/model.mlmodel",
    "coreml/decode.mlpackage/Data/com.apple.CoreML/weights/weight.bin",
    "onnx/step.onnx",
    "executorch/decode.pte",
    "golden.safetensors",
    "preview.png",
]


def edit_manifest(folder: Path, **changes: Any) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def refuse(folder: Path) -> BundleError:
    """The error of opening `folder`, which is one line with a next step."""
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


def test_an_untouched_bundle_opens(placeholders: Path) -> None:
    bundle = open_bundle(placeholders)
    assert bundle.path == placeholders
    assert sorted(bundle.manifest.files) == list_files(placeholders)
    assert set(FILES) <= set(bundle.manifest.files)


def test_a_moved_bundle_opens(placeholders: Path, tmp_path: Path) -> None:
    moved = placeholders.rename(tmp_path / "elsewhere.kind")
    assert open_bundle(moved).manifest.sampling.steps == 4


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("position", [0, -1])
def test_one_changed_bit_is_found(placeholders: Path, name: str, position: int) -> None:
    data = bytearray((placeholders / name).read_bytes())
    data[position] ^= 1
    (placeholders / name).write_bytes(data)
    assert f"{placeholders / name} has sha256" in refuse(placeholders).message


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(placeholders: Path, name: str) -> None:
    (placeholders / name).unlink()
    assert refuse(placeholders).message == f"{placeholders} has no file {name}"


def test_a_longer_and_a_shorter_file_are_found(placeholders: Path) -> None:
    file = placeholders / "onnx/step.onnx"
    data = file.read_bytes()
    for changed in (data + b"\0", data[:-1], b""):
        file.write_bytes(changed)
        assert "the manifest expects" in refuse(placeholders).message


def test_reports_with_timings_may_change(placeholders: Path) -> None:
    for name in ("measured.json", "report.json", "report.html"):
        (placeholders / name).write_text("of another day")
    open_bundle(placeholders)


def test_a_file_nobody_verified_is_ignored(placeholders: Path) -> None:
    (placeholders / ".DS_Store").write_text("a file manager was here")
    assert ".DS_Store" not in open_bundle(placeholders).manifest.files


@pytest.mark.parametrize("name", ["../outside", "onnx/../../outside", "{absolute}", "..\\outside", "C:\\outside", ""])
def test_a_path_that_leaves_the_bundle_is_refused(placeholders: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.write_text("not of this bundle")
    name = name.format(absolute=outside)
    files = json.loads((placeholders / "manifest.json").read_text())["files"]
    edit_manifest(placeholders, files={name: {"sha256": hash_file(outside), "size_bytes": 18}, **files})
    assert f"lists {name!r}, which is outside the bundle" in refuse(placeholders).message


def test_a_program_without_a_hash_is_refused(placeholders: Path, tmp_path: Path) -> None:
    shutil.copy(placeholders / "onnx/step.onnx", tmp_path / "step.onnx")
    data = json.loads((placeholders / "manifest.json").read_text())
    data["targets"]["onnx"]["programs"]["step"]["file"] = "../step.onnx"
    edit_manifest(placeholders, targets=data["targets"])
    assert "no sha256 of the program ../step.onnx" in refuse(placeholders).message


def test_a_package_with_no_hashed_file_is_refused(placeholders: Path) -> None:
    files = json.loads((placeholders / "manifest.json").read_text())["files"]
    edit_manifest(placeholders, files={k: v for k, v in files.items() if not k.startswith("coreml/step")})
    assert "no sha256 of the program coreml/step.mlpackage" in refuse(placeholders).message


def test_what_is_no_bundle_is_said_plainly(tmp_path: Path) -> None:
    assert refuse(tmp_path / "nothing").message == f"there is no bundle {tmp_path / 'nothing'}"
    assert "has no manifest.json" in refuse(tmp_path).message
    file = tmp_path / "panda.kind"
    file.write_text("a file")
    assert "is not a bundle" in refuse(file).message


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[]", b"null"])
def test_a_broken_manifest_is_refused(placeholders: Path, content: bytes) -> None:
    (placeholders / "manifest.json").write_bytes(content)
    assert str(placeholders / "manifest.json") in refuse(placeholders).message


def test_a_newer_bundle_asks_for_an_upgrade(placeholders: Path) -> None:
    edit_manifest(placeholders, format_version=3)
    error = refuse(placeholders)
    assert "format_version 3, this program reads up to 2" in error.message
    assert "upgrade" in error.hint


def test_the_manifest_alone_can_be_read_from_a_damaged_bundle(placeholders: Path) -> None:
    (placeholders / "onnx/step.onnx").unlink()
    assert read_manifest(placeholders).sampling.sampler == "dpmpp"


def test_a_bundle_may_hold_one_target(placeholders: Path) -> None:
    shutil.rmtree(placeholders / "coreml")
    write_manifest(placeholders, ["onnx"])
    assert list(open_bundle(placeholders).manifest.targets) == ["onnx"]
