"""The gate against silent fallback of ExecuTorch programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kind_core.errors import VerificationError
from kind_export.targets.target import Lowering, TargetOptions, load_target
from kind_export.verify import delegation
from kind_export.verify.delegation import check_delegation, check_strict
from kind_runtimes.manifest import ProgramSpec, TargetSpec, TensorSpec

SHAPE = (1, 64, 64)


class Whole(nn.Module):
    """Matrix products only: XNNPACK takes all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        for layer in self.layers:
            x = layer(x)
        return (x,)


class Cut(Whole):
    """LayerNorm as an operator falls to a portable kernel at every layer."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        for layer in self.layers:
            x = F.layer_norm(layer(x), (64,))
        return (x,)


def lower(module: nn.Module, folder: Path) -> tuple[TargetSpec, dict[str, Any]]:
    x, y = (TensorSpec(name=name, shape=SHAPE, dtype="float32") for name in ("x", "y"))
    lowering = Lowering(name="step", module=module.eval(), example=(torch.zeros(SHAPE),), inputs=(x,), outputs=(y,))
    facts = load_target("executorch").lower(lowering, folder / "step.pte", TargetOptions(precision="fp32"))
    program = ProgramSpec(name="step", file="step.pte", inputs=(x,), outputs=(y,))
    return TargetSpec(target="executorch", precision="fp32", programs={"step": program}), facts


def test_ops_left_over_are_counted_timed_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, facts = lower(Cut(), tmp_path)
    assert facts["portable_ops"]["aten::native_layer_norm"] == 3
    assert facts["num_delegates"] > 1
    figures = check_delegation(tmp_path, target)  # below the shortest run that says anything: reported, not refused
    assert "native_layer_norm" in str(figures["portable_ms"])
    with pytest.raises(VerificationError, match=r"3 x native_layer_norm on portable: XNNPACK has no operator for it"):
        check_strict(tmp_path, target, figures)
    monkeypatch.setattr(delegation, "MIN_RUN_MS", 0.0)
    with pytest.raises(VerificationError, match="native_layer_norm"):
        check_delegation(tmp_path, target)


def test_a_whole_program_has_one_delegate(tmp_path: Path) -> None:
    target, facts = lower(Whole(), tmp_path)
    assert facts["num_delegates"] == 1
    figures = check_delegation(tmp_path, target)
    check_strict(tmp_path, target, figures)
    share = figures["delegate_share"]
    assert isinstance(share, float)
    assert 0 < share <= 1


def test_other_targets_have_no_trace(tmp_path: Path) -> None:
    target = TargetSpec(target="onnx", precision="fp32", programs={})
    assert check_delegation(tmp_path, target) is None
