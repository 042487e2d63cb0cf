"""The operators that LiteRT's GPU delegate takes give the numbers of the others, and no norm leaves fp16."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kind_core.config import DiffusionConfig
from kind_core.schedule import read_sampler_table
from kind_export.compact.decode import DecodeProgram
from kind_export.compact.layers import Norm, pick_rows
from kind_export.compact.model import CompactModel
from kind_export.compact.step import GraphStyle, StepProgram
from kind_export.rewrites import RewriteOptions, rewrite, rewrite_base
from kind_export.rewrites.compose_gates import compose_gates
from tiny import tiny_config, tiny_model

_STEPS = 4
_STYLE = GraphStyle(norm="scaled", lookup="one_hot", max_axes=4, clamp="relu")


def _table() -> Any:
    config = DiffusionConfig(noise_schedule="squaredcos_cap_v2", prediction_type="sample")
    return read_sampler_table(config, "dpmpp", _STEPS)


@torch.no_grad()
def _require_same(model: CompactModel, choice: tuple[Tensor, ...], pack: tuple[Tensor, ...] = ()) -> None:
    usual, other = (StepProgram(model, style=style) for style in (GraphStyle(), _STYLE))
    shape = (1, 3, model.config.sample_size, model.config.sample_size)
    state = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).unbind()
    for index in range(_STEPS):
        inputs = (*state, torch.tensor([index], dtype=torch.int32), *choice, torch.tensor([2.5]), *pack)
        for expected, actual in zip(usual(*inputs), other(*inputs), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("is_rewritten", [False, True], ids=["composed", "rewritten"])
@pytest.mark.parametrize("num_classes", [1, 3])
def test_a_step_is_the_same(num_classes: int, is_rewritten: bool) -> None:
    source = tiny_model(tiny_config(num_classes=num_classes))
    model = rewrite(source, _table(), RewriteOptions()) if is_rewritten else compose_gates(source, _table())
    for label in range(num_classes):
        _require_same(model, (torch.tensor([label], dtype=torch.int32),))


def test_a_base_is_the_same() -> None:
    base, classes = rewrite_base(tiny_model(tiny_config(num_classes=2)), _table(), 2)
    for one in classes:
        _require_same(base, (), (one.tailor, one.modulation_basis, one.modulation_coefficients))


def test_rows_are_picked_exactly() -> None:
    table = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    step, label = torch.tensor([1], dtype=torch.int32), torch.tensor([0, 2], dtype=torch.int32)
    places = ((step, 2), (label, 3))
    picked = pick_rows(table, *places, form="one_hot")
    assert torch.equal(picked, table[[3, 5]])
    assert torch.equal(picked, pick_rows(table, *places, form="gather"))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 300.0, 20000.0])
def test_no_number_of_a_norm_leaves_fp16(scale: float) -> None:
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(2)) * scale
    expected = F.layer_norm(x, (32,), eps=1e-6)
    actual = Norm(32, "scaled").half()(x.half()).float()
    assert actual.isfinite().all()
    assert (actual - expected).abs().max() < 0.02
    if scale == 300.0:  # whose squares are beyond fp16
        assert not Norm(32, "matmul").half()(x.half()).isfinite().all() or (
            (Norm(32, "matmul").half()(x.half()).float() - expected).abs().max() > 1
        )


def test_a_constant_input_is_no_division_by_nothing() -> None:
    assert torch.equal(Norm(32, "scaled").half()(torch.full((1, 32), 5.0).half()), torch.zeros(1, 32).half())


def test_a_picture_is_clamped_the_same() -> None:
    latents = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(3)) * 2
    expected, actual = (DecodeProgram(1.0, clamp=clamp)(latents) for clamp in ("native", "relu"))
    assert (expected.min(), expected.max()) == (actual.min(), actual.max()) == (0, 1)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-7)
