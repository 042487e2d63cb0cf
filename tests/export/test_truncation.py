"""Rank truncation: the best approximation of its rank, and exact where nothing is cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kind_core.config import DiffusionConfig
from kind_core.schedule import read_sampler_table
from kind_export.compact.model import CompactModel, Factors
from kind_export.compact.step import StepProgram
from kind_export.rewrites.compose_gates import compose_gates
from kind_export.rewrites.fold_scales import fold_scales
from kind_export.rewrites.truncate_ranks import may_cut, measure_truncation, truncate_ranks
from tiny import tiny_config, tiny_model

_MODELS: dict[str, dict[str, Any]] = {
    "factored": {"num_classes": 1},
    "several classes": {"num_classes": 3},
    "dense": {"num_classes": 1, "learngene_rank": None, "tailor_rank": 0},
}


@pytest.fixture(params=_MODELS)
def folded(request: pytest.FixtureRequest) -> CompactModel:
    config = tiny_config(**_MODELS[request.param])
    diffusion = DiffusionConfig(noise_schedule="squaredcos_cap_v2", prediction_type="sample")
    return fold_scales(compose_gates(tiny_model(config), read_sampler_table(diffusion, "ddim", 4)))


@torch.no_grad()
def _step(model: CompactModel) -> torch.Tensor:
    latents = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    zero = torch.zeros(1, dtype=torch.int32)
    return StepProgram(model)(latents, zero, zero, torch.tensor([2.0]))[0]


def _ranks(model: CompactModel) -> set[int]:
    return {m.learngene.rank for block in model.blocks for m in block.values() if isinstance(m.learngene, Factors)}


def test_nothing_cut_is_exact(folded: CompactModel) -> None:
    for limits in ((None, None), (1000, None), (None, 1.0), (1000, 1.0)):
        assert truncate_ranks(folded, *limits) is folded
        assert not may_cut(folded.config, *limits)
    whole = truncate_ranks(folded, None, 1 - 1e-9)
    assert measure_truncation(folded, whole) < 1e-4
    assert torch.allclose(_step(folded), _step(whole), atol=1e-3)


def test_rank_is_bounded_and_the_error_grows_as_it_falls(folded: CompactModel) -> None:
    errors = []
    for rank in (6, 4, 2):
        cut = truncate_ranks(folded, rank, None)
        assert _ranks(cut) == {rank}
        errors.append(measure_truncation(folded, cut))
    assert 0 < errors[0] < errors[1] < errors[2] < 1


def test_energy_bounds_the_error(folded: CompactModel) -> None:
    cut = truncate_ranks(folded, None, 0.8)
    assert 0 < measure_truncation(folded, cut) <= 0.2**0.5
    assert max(_ranks(cut)) < 32


def test_cut_is_the_best_of_its_rank(folded: CompactModel) -> None:
    matrix, cut = (model.blocks[0]["up"].learngene for model in (folded, truncate_ranks(folded, 3, None)))
    assert isinstance(cut, Factors)
    weight = matrix.up @ matrix.down if isinstance(matrix, Factors) else matrix
    lost = torch.linalg.matrix_norm(weight - cut.up @ cut.down)
    assert torch.isclose(lost, torch.linalg.svdvals(weight)[3:].norm(), rtol=1e-3)


def test_live_rank_counts_the_tailor() -> None:
    config = tiny_config(num_classes=1, tailor_rank=2)
    model = fold_scales(compose_gates(tiny_model(config), read_sampler_table(DiffusionConfig(), "ddim", 4)))
    assert {m.rank for m in truncate_ranks(model, 4, None).blocks[0].values()} == {6}
