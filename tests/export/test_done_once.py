"""What torch does once for a lowering and not again and again changes no byte of a file, and torch stays as it was."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch._export.utils as export_utils
from torch.fx.traceback import NodeSource
from torch.onnx._internal.exporter._registration import ONNXRegistry

from kind_export.targets.target import Lowering, TargetOptions, load_target
from small_bundles import PRECISIONS, SmallDecode, program_specs


@pytest.mark.parametrize("target", ["onnx", "executorch", "coreml"])
def test_files_are_the_same(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, spec = load_target(target), program_specs(target)["decode"]
    decode = SmallDecode(255.0 if module.IMAGE_OUTPUT else 1.0).eval()
    lowering = Lowering(
        name=spec.name, module=decode, example=(torch.zeros(spec.inputs[0].shape),), inputs=spec.inputs,
        outputs=spec.outputs,
    )  # fmt: skip
    options = TargetOptions(precision=PRECISIONS[target])  # type: ignore[arg-type]
    (tmp_path / "once").mkdir()
    (tmp_path / "again").mkdir()
    before = _of_torch()
    module.lower(lowering, tmp_path / "once" / f"decode{module.SUFFIX}", options)
    assert _of_torch() == before
    for name in ("done_once", "kept_registry"):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, nullcontext)
    module.lower(lowering, tmp_path / "again" / f"decode{module.SUFFIX}", options)
    assert _read(tmp_path / "once") == _read(tmp_path / "again")


def _of_torch() -> tuple[object, ...]:
    return (
        vars(NodeSource).get("__deepcopy__"), export_utils._materialize_cpp_cia_ops, vars(ONNXRegistry)["from_torchlib"]
    )  # fmt: skip


def _read(folder: Path) -> dict[str, bytes]:
    return {str(x.relative_to(folder)): x.read_bytes() for x in folder.rglob("*") if x.is_file()}
