"""The program of one half: what the pair gives at guidance 1, in every form of a model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kind_core.config import DiffusionConfig
from kind_core.samplers import Sampling
from kind_core.schedule import read_sampler_table
from kind_export.compact.model import CompactModel
from kind_export.compact.step import GraphStyle, StepProgram
from kind_export.rewrites import RewriteOptions, rewrite, rewrite_base
from kind_export.rewrites.compose_gates import compose_gates
from tiny import tiny_config, tiny_model

_STEPS = 4
_MODELS: dict[str, dict[str, Any]] = {
    "one class": {"num_classes": 1},
    "several classes": {"num_classes": 3},
    "dense matrices": {"num_classes": 1, "learngene_rank": 28},
    "dense matrices, several classes": {"num_classes": 2, "learngene_rank": 28},
    "no learngene": {"num_classes": 2, "learngene_rank": None, "tailor_rank": 0},
}


def _table() -> Any:
    config = DiffusionConfig(noise_schedule="squaredcos_cap_v2", prediction_type="sample")
    return read_sampler_table(config, "dpmpp", _STEPS)


@torch.no_grad()
def _compare(model: CompactModel, choice: tuple[Tensor, ...], pack: tuple[Tensor, ...] = ()) -> None:
    for style in (GraphStyle(), GraphStyle(norm="matmul", gelu="expanded")):
        pair, half = (StepProgram(model, style=style, is_guided=is_guided) for is_guided in (True, False))
        shape = (1, 3, model.config.sample_size, model.config.sample_size)
        state = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).unbind()
        for index in range(_STEPS):
            step = torch.tensor([index], dtype=torch.int32)
            guided = torch.cat(pair(*state, step, *choice, torch.ones(1), *pack))
            alone = torch.cat(half(*state, step, *choice, *pack))
            assert guided.std() > 0.1
            assert torch.allclose(guided, alone, atol=1e-3)
            other = torch.cat(pair(*state, step, *choice, torch.tensor([3.0]), *pack))
            assert not torch.allclose(other, alone, atol=1e-2)


@pytest.mark.parametrize("changes", _MODELS.values(), ids=_MODELS)
@pytest.mark.parametrize("is_rewritten", [False, True], ids=["composed", "rewritten"])
def test_one_half_is_guidance_one(changes: dict[str, Any], is_rewritten: bool) -> None:
    source = tiny_model(tiny_config(**changes))
    several = not is_rewritten or source.config.num_classes > 1
    model = rewrite(source, _table(), RewriteOptions()) if is_rewritten else compose_gates(source, _table())
    for label in range(model.num_classes if several else 1):
        _compare(model, (torch.tensor([label], dtype=torch.int32),))


def test_one_half_of_a_base_takes_the_same_pack() -> None:
    source = tiny_model(tiny_config(num_classes=2))
    base, classes = rewrite_base(source, _table(), 2)
    for one in classes:
        _compare(base, (), (one.tailor, one.modulation_basis, one.modulation_coefficients))


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((0.0, 1.0), (True, True, True, True, True)),
        ((0.2, 0.8), (False, True, True, True, False)),
        ((0.0, 0.5), (True, True, True, False, False)),
        ((0.9, 1.0), (False, False, False, False, False)),
    ],
)
def test_guidance_is_on_inside_the_interval(interval: tuple[float, float], expected: tuple[bool, ...]) -> None:
    assert Sampling(sampler="ddim", steps=5, guidance_scale=2.0, guidance_interval=interval).guided == expected
