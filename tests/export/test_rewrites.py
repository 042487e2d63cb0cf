"""Rewrites are exact: one step before equals one step after, alone and all together, and each does its job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kind_core.closeness import psnr_db
from kind_core.config import DiffusionConfig, DiTConfig
from kind_core.errors import ConfigError
from kind_core.noise import start_noise
from kind_core.samplers import Sampling
from kind_core.sampling import sample_latents
from kind_core.schedule import read_sampler_table
from kind_export.compact.model import CompactModel, ConditioningTable, Factors, ModulationTable
from kind_export.compact.step import GraphStyle, StepProgram
from kind_export.rewrites import PASSES, RewriteOptions, describe_rewrites, rewrite
from kind_export.rewrites.bake_conditioning import bake_conditioning
from kind_export.rewrites.choose_forms import choose_forms
from kind_export.rewrites.compose_gates import compose_gates
from kind_export.rewrites.drop_sigma import drop_sigma
from kind_export.rewrites.fold_scales import fold_scales
from kind_export.rewrites.join_qkv import join_qkv
from kind_export.rewrites.merge_tailor import merge_tailor
from tiny import tiny_config, tiny_model

STEPS = 4
COSINE = DiffusionConfig(noise_schedule="squaredcos_cap_v2", prediction_type="sample")
MODELS: dict[str, dict[str, Any]] = {
    "one class": {"num_classes": 1},
    "several classes": {"num_classes": 3},
    "dense": {"num_classes": 2, "learngene_rank": None, "tailor_rank": 0},
    "ranks by class": {"num_classes": 3, "tailor_ranks": (3, 0, 1)},
    "one class without tailor": {"num_classes": 1, "tailor_rank": 0},
    "high rank": {"num_classes": 2, "learngene_rank": 28},
    "high rank, one class": {"num_classes": 1, "learngene_rank": 28},
    "learn_sigma": {"num_classes": 2, "learn_sigma": True},
    "norms of two epsilons": {"num_classes": 1, "mlp_norm_eps": 0.1},
    "embedders of each block": {"num_classes": 2, "block_embedders": True, "depth": 3},
    "dense, embedders of each block": {
        "num_classes": 2,
        "block_embedders": True,
        "depth": 3,
        "learngene_rank": None,
        "tailor_rank": 0,
    },
}
Rewrite = Callable[[CompactModel], CompactModel]


def _compose(config: DiTConfig, sampler: str = "dpmpp") -> CompactModel:
    return compose_gates(tiny_model(config), read_sampler_table(COSINE, sampler, STEPS))


@pytest.fixture(params=MODELS)
def composed(request: pytest.FixtureRequest) -> CompactModel:
    return _compose(tiny_config(**MODELS[request.param]))


@torch.no_grad()
def _run(model: CompactModel, **options: Any) -> Tensor:
    """Results of the step program at every step and class, at two guidance scales, stacked."""
    program = StepProgram(model, **options).eval()
    shape = (1, model.config.in_channels, model.config.sample_size, model.config.sample_size)
    latents, history = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    return torch.stack(
        [
            torch.cat(program(latents, history, _index(step), _index(label), torch.tensor([guidance])))
            for step in range(STEPS)
            for label in range(model.num_classes)
            for guidance in (1.0, 2.5)
        ]
    )


def _index(value: int) -> Tensor:
    return torch.tensor([value], dtype=torch.int32)


def _require_equal(before: Tensor, after: Tensor) -> None:
    assert before.std() > 0.1, "a flat result proves nothing"
    assert (before - after).abs().max() < 1e-5 * before.abs().max()


ALONE: dict[str, Rewrite] = {
    "drop_sigma": drop_sigma,
    "fold_scales": fold_scales,
    "choose_forms": lambda m: choose_forms(fold_scales(m)),
    "join_qkv": lambda m: join_qkv(choose_forms(fold_scales(m))),
    "merge_tailor": lambda m: merge_tailor(fold_scales(m)),
    "bake on": lambda m: bake_conditioning(m, "on"),
    "bake off": lambda m: bake_conditioning(m, "off"),
}


@pytest.mark.parametrize("name", ALONE)
def test_rewrite_keeps_the_result(composed: CompactModel, name: str) -> None:
    _require_equal(_run(composed), _run(ALONE[name](composed)))


@pytest.mark.parametrize("baking", ["auto", "on", "off"])
@pytest.mark.parametrize("kind", MODELS)
def test_all_together_keep_the_result(kind: str, baking: str) -> None:
    model = tiny_model(tiny_config(**MODELS[kind]))
    table = read_sampler_table(COSINE, "dpmpp", STEPS)
    after = rewrite(model, table, RewriteOptions(baking=baking))
    _require_equal(_run(compose_gates(model, table)), _run(after))


def _reverse_units(model: CompactModel) -> CompactModel:
    """Given: dense matrices. Result: the units of each MLP in the opposite order, which no output tells."""
    blocks = []
    for block in model.blocks:
        up, down = block["up"], block["down"]
        assert isinstance(up.learngene, Tensor)
        assert isinstance(down.learngene, Tensor)
        rows = tuple(replace(tailor, up=tailor.up.flip(0)) for tailor in up.tailors)
        columns = tuple(replace(tailor, down=tailor.down.flip(1)) for tailor in down.tailors)
        up = replace(up, learngene=up.learngene.flip(0), tailors=rows, bias=up.bias.flip(0))
        down = replace(down, learngene=down.learngene.flip(1), tailors=columns)
        blocks.append({**block, "up": up, "down": down})
    return replace(model, blocks=tuple(blocks))


def test_one_line_adds_a_rewrite(monkeypatch: pytest.MonkeyPatch) -> None:
    """As CONTRIBUTING says it: here one that orders the channels of the MLP anew, which is exact."""
    monkeypatch.setitem(PASSES, "reverse_units", lambda model, options: _reverse_units(model))
    model, table = tiny_model(tiny_config(num_classes=2)), read_sampler_table(COSINE, "dpmpp", STEPS)
    after = rewrite(model, table, RewriteOptions(forms="dense"))
    _require_equal(_run(compose_gates(model, table)), _run(after))
    monkeypatch.undo()
    plain = rewrite(model, table, RewriteOptions(forms="dense")).blocks[0]["up"]
    assert torch.equal(after.blocks[0]["up"].bias.flip(0), plain.bias)
    assert not torch.equal(after.blocks[0]["up"].bias, plain.bias)


@pytest.mark.parametrize("style", [GraphStyle(norm="matmul"), GraphStyle(gelu="expanded")], ids=str)
def test_styles_are_equal(composed: CompactModel, style: GraphStyle) -> None:
    _require_equal(_run(composed), _run(composed, style=style))


def test_classes_differ() -> None:
    """What the equalities above rest on: a swapped tailor or label would show."""
    results = _run(_compose(tiny_config(num_classes=2))).unflatten(0, (STEPS, 2, 2))
    assert (results[:, 0] - results[:, 1]).abs().max() > 1e-2


def test_scales_are_folded() -> None:
    folded = fold_scales(_compose(tiny_config()))
    assert folded.attention_scale == 1
    for matrix in folded.blocks[0].values():
        assert isinstance(matrix.learngene, Factors)
        assert matrix.learngene.scale is None
        assert all(tailor.scale is None for tailor in matrix.tailors)


def test_merged_gate_closes_the_tailor_of_the_null_half_alone() -> None:
    model = merge_tailor(fold_scales(_compose(tiny_config(num_classes=1))))
    gate = model.blocks[0]["up"].gate
    assert gate is not None
    assert gate[0].eq(1).all()
    assert gate[1, 0].tolist() == [1.0] * 8 + [0.0] * 2


def test_several_classes_keep_their_tailors_apart() -> None:
    model = merge_tailor(fold_scales(_compose(tiny_config(num_classes=2))))
    assert all(matrix.gate is None and len(matrix.tailors) == 2 for matrix in model.blocks[0].values())


def test_qkv_are_joined_only_when_dense() -> None:
    factored = join_qkv(choose_forms(fold_scales(_compose(tiny_config(learngene_rank=8)))))
    dense = join_qkv(choose_forms(fold_scales(_compose(tiny_config(learngene_rank=28)))))
    assert {"q", "k", "v"} <= set(factored.blocks[0])
    assert "qkv" in dense.blocks[0]
    assert not {"q", "k", "v"} & set(dense.blocks[0])
    assert dense.blocks[0]["qkv"].shape == (96, 32)


# hidden 64: a square matrix breaks even at 64 / 2 = 32, an MLP matrix at 4 / 5 * 64 = 51.2
@pytest.mark.parametrize(
    ("rank", "square_dense", "mlp_dense"),
    [(31, False, False), (32, True, False), (51, True, False), (52, True, True)],
)
def test_form_is_chosen_at_the_break_even(rank: int, square_dense: bool, mlp_dense: bool) -> None:
    config = tiny_config(hidden_size=64, num_classes=2, learngene_rank=rank)
    block = choose_forms(fold_scales(_compose(config))).blocks[0]
    assert {name: block[name].is_dense for name in "qkvo"} == dict.fromkeys("qkvo", square_dense)
    assert {name: block[name].is_dense for name in ("up", "down")} == dict.fromkeys(("up", "down"), mlp_dense)


def test_bake_auto_takes_the_smaller() -> None:
    small = bake_conditioning(_compose(tiny_config(num_classes=1)))
    large = bake_conditioning(_compose(tiny_config(num_classes=30)))  # 4 * 31 rows for a width of 32
    assert isinstance(small.conditioning, ModulationTable)
    assert isinstance(large.conditioning, ConditioningTable)


def test_bake_removes_the_embedders() -> None:
    model = _compose(tiny_config(num_classes=1))
    before, after = (_num_stored(StepProgram(m)) for m in (model, bake_conditioning(model)))
    assert after < before / 2


def test_sigma_channels_are_dropped() -> None:
    model = _compose(tiny_config(learn_sigma=True))
    assert (model.num_outputs, drop_sigma(model).num_outputs) == (6, 3)


def test_unknown_baking_is_refused() -> None:
    with pytest.raises(ConfigError, match="baking is 'maybe', expected one of auto, on, off"):
        bake_conditioning(_compose(tiny_config()), "maybe")


def test_description_names_the_forms() -> None:
    model = rewrite(tiny_model(tiny_config(num_classes=1)), read_sampler_table(COSINE, "ddim", STEPS), RewriteOptions())
    described = describe_rewrites(model)
    assert described["conditioning"] == "modulation table"
    assert described["matrices_of_a_block"]["up"] == {
        "form": "factored", "shape": [128, 32], "live_rank": 10, "tailor": "merged",
    }  # fmt: skip


# `flow` has the solvers that know straight paths, the other schedules the other two
TRAJECTORIES = [
    (schedule, prediction, sampler)
    for schedule, prediction, samplers in (
        ("squaredcos_cap_v2", "epsilon", ("ddim", "dpmpp")),
        ("squaredcos_cap_v2", "v_prediction", ("ddim", "dpmpp")),
        ("squaredcos_cap_v2", "sample", ("ddim", "dpmpp")),
        ("linear", "epsilon", ("ddim", "dpmpp")),
        ("flow", "flow_prediction", ("euler", "dpmpp")),
        ("flow", "sample", ("dpmpp",)),
    )
    for sampler in samplers
]


@pytest.mark.parametrize(("schedule", "prediction", "sampler"), TRAJECTORIES)
@pytest.mark.parametrize("steps", [1, 2, 6, 17])
@torch.no_grad()
def test_trajectory_in_the_graph_equals_the_scheduler(schedule: str, prediction: str, sampler: str, steps: int) -> None:
    config = DiffusionConfig(noise_schedule=schedule, prediction_type=prediction)
    model = tiny_model(tiny_config(num_classes=2))
    table = read_sampler_table(config, sampler, steps)
    program = StepProgram(rewrite(model, table, RewriteOptions())).eval()
    noise = torch.from_numpy(start_noise(3, (1, 3, 8, 8)))
    label = torch.tensor([1])
    expected = sample_latents(
        model, config, noise, label, label, Sampling(sampler=sampler, steps=steps, guidance_scale=2.0)
    )
    state: tuple[Tensor, ...] = (noise * table.initial_noise_scale,)
    state += (torch.zeros_like(noise),) * table.has_history
    for step in range(steps):
        state = program(*state, _index(step), _index(1), torch.tensor([2.0]))
    assert expected.std() > 0.05
    assert psnr_db(expected.numpy(), state[0].numpy()) > 60


def test_program_without_history_takes_none() -> None:
    model = replace(_compose(tiny_config(), sampler="ddim"))
    assert not StepProgram(model).has_history


def _num_stored(program: StepProgram) -> int:
    return sum(t.numel() for t in (*program.parameters(), *program.buffers()))
