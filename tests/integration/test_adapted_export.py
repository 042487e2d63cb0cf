"""A base that got new classes exports its old ones to the same programs, byte for byte, and the new ones at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kind_core.checkpoint import read_config
from kind_core.classes import ClassInfo
from kind_core.growth import save_grown
from kind_export.pipeline import export_bundle
from kind_export.request import ExportRequest
from tiny import tiny_config, tiny_model


def test_an_old_class_is_exported_to_the_same_bytes(checkpoint_path: Path, tmp_path: Path) -> None:
    # another rank, so that the bank of the grown checkpoint is wider
    dit = tiny_config(num_classes=1, tailor_rank=3)
    addition = replace(
        read_config(checkpoint_path), dit=dit, classes=(ClassInfo(id="n02134084", names=("polar bear",)),)
    )
    save_grown(tmp_path / "grown", checkpoint_path, addition, tiny_model(dit, seed=5))
    programs = []
    for checkpoint in (checkpoint_path, tmp_path / "grown"):
        output = tmp_path / f"{checkpoint.name}.kind"
        export_bundle(
            ExportRequest(checkpoint=checkpoint, classes=("giant panda",), targets=("onnx",), output=output, steps=3)
        )
        programs.append((output / "onnx" / "step.onnx").read_bytes())
    assert programs[0] == programs[1]
    new = ExportRequest(
        checkpoint=tmp_path / "grown", classes=("polar bear",), targets=("onnx",), output=tmp_path / "new.kind", steps=3
    )
    assert export_bundle(new).manifest.classes[0].id == "n02134084"
