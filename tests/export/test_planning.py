"""Plans: what is counted without lowering is what the artifact does, and what is chosen fits with the least error."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from distilled import distilled_config
from kind_bench.counting import count_program
from kind_bench.forecasting.devices import load_device
from kind_core.checkpoint import Checkpoint
from kind_core.errors import BudgetError, ConfigError
from kind_core.precisions import PrecisionName
from kind_core.schedule import choose_sampling, read_sampler_table
from kind_export.budget import Budget, Cost, parse_size
from kind_export.compact.step import StepProgram
from kind_export.planning.choice import Choice, Considered, Plan, PlanInputs
from kind_export.planning.eager_work import count_eager
from kind_export.planning.plan import Planner
from kind_export.planning.space import Space
from kind_export.request import ExportRequest
from kind_export.rewrites import RewriteOptions, rewrite
from kind_export.targets.lowering import lower_target
from kind_export.targets.programs import make_step
from kind_export.targets.target import TargetOptions, load_target
from kind_export.verify.reference import Reference
from tiny import tiny_config, tiny_model, tiny_model_config

STEPS = 4


@cache
def _checkpoint() -> Checkpoint:
    dit = tiny_config(hidden_size=64, depth=1, learngene_rank=30, num_classes=1)
    config = tiny_model_config(dit, noise_schedule="squaredcos_cap_v2", prediction_type="sample")
    return Checkpoint(config=config, model=tiny_model(dit), sha256="0" * 64)


def _plan(
    budget: Budget,
    *,
    precisions: tuple[PrecisionName, ...] = ("fp16", "int8", "palette4"),
    device: str = "a18",
    steps: int = STEPS,
    energy: float | None = None,
    checkpoint: Checkpoint | None = None,
    without: Collection[Choice] = (),
) -> Plan:
    checkpoint = checkpoint or _checkpoint()
    sampling = choose_sampling(checkpoint.config.diffusion, steps=steps)
    if sampling.takes_guidance:
        sampling = replace(sampling, sampler="dpmpp", guidance_scale=2.0)
    reference = Reference(checkpoint=checkpoint, sampling=sampling)
    request = ExportRequest(
        classes=("panda",), targets=("coreml",), checkpoint=Path(), min_ios=18, devices=(device,), budget=budget,
        energy=energy,
    )  # fmt: skip
    inputs = PlanInputs(
        request=request, reference=reference, expected=reference.run(0), target="coreml", precisions=precisions,
        device=load_device(device) if budget.is_timed else None,
    )  # fmt: skip
    return Planner(inputs).plan(lambda stage: None, without)


@pytest.mark.parametrize(
    ("target", "precision"),
    [("onnx", "fp32"), ("onnx", "int8"), ("onnx", "int4"), ("coreml", "fp16"), ("executorch", "fp32")],
)
def test_work_without_lowering_is_that_of_the_artifact(target: str, precision: PrecisionName, tmp_path: Path) -> None:
    table = read_sampler_table(_checkpoint().config.diffusion, "dpmpp", STEPS)
    compact = rewrite(_checkpoint().model, table, RewriteOptions())
    planned = count_eager(make_step(compact, load_target(target), TargetOptions(precision="fp32")), target, precision)
    lowered = lower_target(
        target, compact, tmp_path, TargetOptions(precision=precision), [True] * STEPS, lambda s: None
    )
    spec = lowered.spec.programs["step"]
    actual = count_program(tmp_path / spec.file, spec, target)
    assert planned.flops() == pytest.approx(actual.flops(), rel=0.02)
    assert planned.weight_bytes == pytest.approx(actual.weight_bytes, rel=0.2)
    flops = {(op.op_class, op.precision) for op in actual.ops if op.flops and op.op_class in ("linear", "attention")}
    assert {(op.op_class, op.precision) for op in planned.ops if op.flops and op.op_class != "norm"} >= flops


def test_the_best_choice_fits_and_nothing_closer_does() -> None:
    sizes = sorted({one.cost.size_bytes for one in _plan(Budget(max_size_bytes=10**9)).considered})
    budget = Budget(max_size_bytes=sizes[len(sizes) // 2])
    plan = _plan(budget)
    best = plan.ranked[0]
    assert not best.misses
    assert best.cost.size_bytes <= (budget.max_size_bytes or 0)
    assert best.error_db == max(one.error_db or 0 for one in plan.considered)
    # what is finer in every respect than the best does not fit
    finest = _plan(Budget(max_size_bytes=10**9)).ranked[0]
    assert finest.choice.max_rank is None
    assert finest.choice.precision == "fp16"
    assert (finest.error_db or 0) > (best.error_db or 0)


def test_dense_matrices_are_exact() -> None:
    table = read_sampler_table(_checkpoint().config.diffusion, "dpmpp", STEPS)
    auto, dense = (rewrite(_checkpoint().model, table, RewriteOptions(forms=forms)) for forms in ("auto", "dense"))
    assert all(matrix.is_dense for block in dense.blocks for matrix in block.values())
    assert not all(matrix.is_dense for block in auto.blocks for matrix in block.values())
    example = make_step(auto, load_target("onnx"), TargetOptions(precision="fp32")).example
    inputs = tuple(torch.randn_like(one) if one.is_floating_point() else one for one in example)
    for expected, actual in zip(StepProgram(auto).eval()(*inputs), StepProgram(dense).eval()(*inputs), strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_fewer_steps_are_tried_only_where_a_picture_is_limited() -> None:
    everything = _plan(Budget(max_size_bytes=10**9))
    assert {one.choice.steps for one in everything.considered} == {STEPS}
    timed = _plan(Budget(max_image_ms=1e9), precisions=("fp16",), steps=10)
    assert {one.choice.steps for one in timed.considered} == {10, 8, 6, 5, 4}
    assert timed.ranked[0].choice.steps == 10  # more come closer


@pytest.mark.parametrize("steps", [1, 3])
def test_few_steps_are_not_made_more(steps: int) -> None:
    plan = _plan(Budget(max_image_ms=1e9), precisions=("fp16",), steps=steps)
    assert {one.choice.steps for one in plan.considered} == {steps}


@pytest.mark.parametrize(
    ("budget", "steps"), [(Budget(max_image_ms=1e9), {4, 2, 1}), (Budget(max_size_bytes=10**9), {4})]
)
def test_a_distilled_model_takes_fewer_of_the_steps_that_it_was_trained_for(budget: Budget, steps: set[int]) -> None:
    config = distilled_config(hidden_size=64, depth=2, num_classes=1)
    student = Checkpoint(config=config, model=tiny_model(config.dit), sha256="0" * 64)
    plan = _plan(budget, precisions=("fp16",), checkpoint=student)
    assert {one.choice.steps for one in plan.considered} == steps
    assert plan.ranked[0].choice.steps == 4


def test_ranks_cut_by_energy_are_held_as_few_bits_are() -> None:
    best = _plan(Budget(max_size_bytes=10**9), precisions=("fp32",), energy=0.99).ranked[0]
    assert best.choice.max_rank is None
    assert 25 < (best.error_db or 0) < 60  # the gate of int4, and of fp32


def test_where_the_finest_choice_misses_its_gate_a_coarser_one_may_hold_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def measure(space: Space, one: Considered) -> Considered:
        is_whole = one.choice.max_rank is None
        return replace(one, error_db=33.0 if is_whole else 26.0, below_gate=is_whole)

    monkeypatch.setattr(Space, "measure", measure)
    best = _plan(Budget(max_size_bytes=10**9), precisions=("fp16",)).ranked[0].choice
    assert best.max_rank == 26  # of 30: the finest of those that are cut


def test_a_plan_of_nothing_but_what_did_not_hold_is_refused() -> None:
    budget = Budget(max_size_bytes=10**9)
    tried = [one.choice for one in _plan(budget, precisions=("fp16",)).considered]
    with pytest.raises(BudgetError, match="no choice within the budget holds"):
        _plan(budget, precisions=("fp16",), without=tried)


@pytest.mark.parametrize(
    ("budget", "limit"), [(Budget(max_size_bytes=1000), "max-size"), (Budget(max_step_ms=1e-6), "max-step-ms")]
)
def test_an_unmet_budget_names_the_limit_and_by_how_much(budget: Budget, limit: str) -> None:
    with pytest.raises(BudgetError, match=rf"{limit} .* needs .*% over"):
        _plan(budget, precisions=("fp16",))


def test_a_device_without_a_forecast_is_refused() -> None:
    with pytest.raises(BudgetError, match="no forecast for Kirin 9020"):
        _plan(Budget(max_step_ms=5), precisions=("fp16",), device="kirin-9020")


@pytest.mark.parametrize(
    ("text", "size"), [("50MB", 50_000_000), ("1.5 GB", 1_500_000_000), ("800 kb", 800_000), ("1MiB", 2**20), ("7", 7)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["fifty", "5 parsecs", "-3MB", "", "9" * 400])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="max-size"):
        parse_size(text)


def test_misses_say_how_far() -> None:
    (miss,) = Cost(size_bytes=3_000_000).misses(Budget(max_size_bytes=2_000_000))
    assert miss.describe() == "max-size 2.00 MB, needs 3.00 MB (50% over)"
    assert not Cost(size_bytes=2_000_000).misses(Budget(max_size_bytes=2_000_000))


def test_a_budget_of_time_needs_one_device_and_any_budget_one_target(tmp_path: Path) -> None:
    request = ExportRequest(classes=("panda",), targets=("onnx",), checkpoint=tmp_path)
    with pytest.raises(ConfigError, match="one device, asked for none"):
        replace(request, budget=Budget(max_step_ms=5))
    with pytest.raises(ConfigError, match="one device, asked for a16, a18"):
        replace(request, budget=Budget(max_image_ms=5), devices=("a16", "a18"))
    with pytest.raises(ConfigError, match="one target, asked for coreml, onnx, executorch"):
        replace(request, budget=Budget(max_size_bytes=5), targets=("all",))
    with pytest.raises(ConfigError, match="positive"):
        Budget(max_step_ms=-1)
