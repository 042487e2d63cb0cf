"""Modulations at low rank: the rank is found, the error is the measured one, and what does not pay is left alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kind_core.checkpoint import load_checkpoint, read_config
from kind_core.classes import resolve_classes
from kind_core.closeness import psnr_db
from kind_core.config import DiffusionConfig
from kind_core.precisions import PRECISIONS
from kind_core.samplers import Sampling
from kind_core.schedule import read_sampler_table
from kind_export.compact.model import CompactModel, ConditioningTable, LowRankTable, ModulationTable
from kind_export.compact.step import StepProgram
from kind_export.rewrites import RewriteOptions, rewrite
from kind_export.rewrites.bake_conditioning import bake_conditioning
from kind_export.rewrites.compose_gates import compose_gates
from kind_export.rewrites.factor_modulations import MIN_ERROR_DB, factor_modulations, factor_table, modulations
from kind_export.verify.reference import Reference
from kind_samples import sample_checkpoint
from tiny import tiny_config, tiny_model

STEPS = 6


def composed(num_classes: int, mode: str = "on") -> CompactModel:
    table = read_sampler_table(DiffusionConfig(), "ddim", STEPS)
    return bake_conditioning(compose_gates(tiny_model(tiny_config(num_classes=num_classes)), table), mode)


def low_rank_values(num_classes: int, rank: int, rows: int = 14, hidden: int = 32) -> Tensor:
    """Modulations in which each class differs from the null label, which is last, by exactly `rank` directions."""
    generator = torch.Generator().manual_seed(0)
    null = torch.randn(STEPS, 1, rows, hidden, generator=generator)
    vectors = torch.randn(num_classes, STEPS, rank, generator=generator)
    distances = vectors @ torch.randn(num_classes, rank, rows * hidden, generator=generator)
    return torch.cat([null + distances.transpose(0, 1).unflatten(2, (rows, hidden)), null], dim=1)


def values_of(table: LowRankTable) -> Tensor:
    distances = torch.einsum("csr,crmh->scmh", table.coefficients, table.basis)
    return torch.cat([table.null[:, None] + distances, table.null[:, None]], dim=1)


@pytest.mark.parametrize("rank", [1, 3])
def test_the_rank_is_found_and_the_values_come_back(rank: int) -> None:
    values = low_rank_values(2, rank)
    table = factor_table(values, MIN_ERROR_DB)
    assert table.rank == rank
    torch.testing.assert_close(values_of(table), values, atol=1e-5, rtol=0)


def test_the_error_is_that_of_the_worst_step_of_any_class() -> None:
    values = low_rank_values(3, 4)
    values[:, 1] += 0.3 * torch.randn(values[:, 1].shape, generator=torch.Generator().manual_seed(1))
    table = factor_table(values, 1e9, max_rank=2)
    lost = (values_of(table) - values).square().mean(dim=(2, 3)).max().sqrt()
    assert table.error_db == pytest.approx(20 * math.log10(float((values.max() - values.min()) / lost)), abs=0.01)


@pytest.mark.parametrize("num_steps", [6, 200])
def test_an_error_in_one_step_is_not_hidden_by_the_others(num_steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    null, vector = (
        torch.randn(num_steps, 1, 14, 32, generator=generator),
        torch.randn(num_steps, 1, generator=generator),
    )
    values = torch.cat(
        [null + (vector @ torch.randn(1, 14 * 32, generator=generator)).reshape(null.shape), null], dim=1
    )
    span = float(values.max() - values.min())
    values[-1, 0] += 10 ** (-85 / 20) * span * torch.randn(14, 32, generator=generator)  # 85 dB below the range
    errors = (values_of(factor_table(values, MIN_ERROR_DB)) - values).square().mean(dim=(2, 3)).sqrt()
    assert 20 * math.log10(span / float(errors.max())) >= MIN_ERROR_DB
    assert factor_table(values, 80.0).rank == 1


@pytest.mark.parametrize("num_classes", [1, 3])
@torch.no_grad()
def test_a_step_is_the_same_as_with_the_whole_table(num_classes: int) -> None:
    model = composed(num_classes)
    values = low_rank_values(num_classes, 2)
    whole = StepProgram(replace(model, conditioning=ModulationTable(values=values)))
    factored = factor_modulations(replace(model, conditioning=ModulationTable(values=values)))
    assert isinstance(factored.conditioning, LowRankTable)
    program = StepProgram(factored)
    latents = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for step in range(STEPS):
        for label in range(num_classes):
            inputs = (latents, *(torch.tensor([i], dtype=torch.int32) for i in (step, label)), torch.tensor([2.0]))
            expected, actual = whole(*inputs)[0], program(*inputs)[0]
            assert (expected - actual).abs().max() < 1e-5 * expected.abs().max()


def test_a_table_of_full_rank_stays_whole() -> None:
    model = composed(2)  # random embedders: no direction can be left out
    assert factor_modulations(model) is model


def test_modulations_are_the_same_from_both_tables() -> None:
    whole, vectors = modulations(composed(2, "on")), modulations(composed(2, "off"))
    assert whole is not None
    assert vectors is not None
    torch.testing.assert_close(whole, vectors, atol=1e-5, rtol=1e-5)


def test_many_classes_share_no_adaln_layer_where_low_rank_is_smaller() -> None:
    model = composed(30, "auto")
    assert isinstance(model.conditioning, ConditioningTable)
    assert isinstance(factor_modulations(model, min_error_db=20.0).conditioning, LowRankTable)
    assert factor_modulations(model, min_error_db=1e9) is model


@torch.no_grad()
def test_the_last_of_many_steps_changes_as_the_model_does() -> None:
    """Of the shipped sample: where an error of the mean of a hundred steps is ten times as large in the last."""
    config = read_config(sample_checkpoint("photos-teacher"))
    checkpoint = load_checkpoint(
        sample_checkpoint("photos-teacher"), [resolve_classes(["panda"], config.classes)[0].index]
    )
    reference = Reference(checkpoint=checkpoint, sampling=Sampling(sampler="dpmpp", steps=100, guidance_scale=4.0))
    trajectory = reference.run(0)
    table = read_sampler_table(config.diffusion, "dpmpp", 100)
    compact = rewrite(checkpoint.model, table, RewriteOptions())
    assert isinstance(compact.conditioning, LowRankTable)
    before, history = trajectory.latents[99], trajectory.denoised[98]
    for guidance in (4.0, 5.5):
        expected, _ = reference.step(trajectory, 99, guidance)
        index, label = (torch.tensor([i], dtype=torch.int32) for i in (99, 0))
        inputs = (torch.from_numpy(before), torch.from_numpy(history), index, label, torch.tensor([guidance]))
        actual = StepProgram(compact)(*inputs)[0].numpy()
        assert psnr_db(expected - before, actual - before) > PRECISIONS["fp32"].update_db + 3
