"""`--kit`: the sources of an app's runtime in the bundle, whole, verified, and only beside the programs they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kind_core.errors import ConfigError, KindError, TargetError
from kind_export.bundle.kits import write_kits
from kind_export.pipeline import export_bundle
from kind_export.request import KIT_TARGETS, ExportRequest
from kind_export.target_rows import TARGET_ROWS
from kind_runtimes.bundle import BUNDLE, open_bundle
from kind_runtimes.kits import KITS, kit_folder


def request(**options: Any) -> ExportRequest:
    given: dict[str, Any] = {"classes": ("panda",), "targets": ("onnx",), "checkpoint": Path("somewhere")}
    return ExportRequest(**given | options)


def test_every_kit_runs_a_target() -> None:
    assert set(KIT_TARGETS) == set(KITS)
    assert {name for names in KIT_TARGETS.values() for name in names} <= set(TARGET_ROWS)


@pytest.mark.parametrize("kit", KITS)
def test_kit_is_copied_whole_without_build_output(kit: str, tmp_path: Path) -> None:
    write_kits(tmp_path, [kit])
    copied = {
        file.relative_to(tmp_path / kit): file.read_bytes() for file in (tmp_path / kit).rglob("*.*") if file.is_file()
    }
    assert any(path.name == "README.md" for path in copied)
    assert not any(part.startswith(".") or part == "build" for path in copied for part in path.parts)
    for path, data in copied.items():
        assert data == (kit_folder(kit) / path).read_bytes()


@pytest.mark.parametrize(
    ("options", "kind", "expected"),
    [
        ({"kits": ("windows",)}, ConfigError, "unknown kit 'windows', expected ios or android"),
        ({"kits": ("ios",)}, TargetError, "kit 'ios' runs coreml programs, but the target is onnx"),
        ({"kits": ("android",), "targets": ("coreml",)}, TargetError, "kit 'android' runs onnx or litert programs"),
        ({"kits": ("ios",), "targets": (), "packs": True, "base": Path("b")}, ConfigError, "--kit goes with a new"),
    ],
)  # fmt: skip
def test_kit_that_could_not_run_is_refused_before_any_work(
    options: dict[str, Any], kind: type[KindError], expected: str
) -> None:
    with pytest.raises(kind) as caught:
        request(**options)
    assert expected in caught.value.message
    assert caught.value.hint


def test_kits_go_with_their_targets() -> None:
    assert request(kits=("ios", "android"), targets=("all",)).kits == ("ios", "android")


@pytest.mark.slow
def test_bundle_vouches_for_its_kit(checkpoint_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "some.kind"
    asked = request(classes=("lemon",), checkpoint=checkpoint_path, kits=("android",), output=output, steps=2)
    files = export_bundle(asked).manifest.files
    source = "android/kind-runtime/src/main/kotlin/dev/kind/runtime/KindGenerator.kt"
    assert source in files
    assert not any(name.startswith("ios/") for name in files)
    app = output / "android" / "assets" / "model.kind"
    shipped = {file.relative_to(app).as_posix(): file.read_bytes() for file in app.rglob("*") if file.is_file()}
    # no report; the golden data, which the kit holds each compute unit against
    assert set(shipped) == {"manifest.json", "golden.safetensors", "onnx/step.onnx", "onnx/decode.onnx"}
    assert all(data == (output / name).read_bytes() for name, data in shipped.items())
    assert BUNDLE.find_misfit(output) is None
    (app / "notes.txt").write_text("mine")
    assert "notes.txt" in (BUNDLE.find_misfit(output) or "")
    (output / source).write_text("// another program")
    with pytest.raises(KindError, match="sha256"):
        open_bundle(output)
