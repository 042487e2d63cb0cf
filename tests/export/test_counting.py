"""What is counted in the files against each other and against the count of the model that they were made of."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kind_bench.counting import count_program
from kind_bench.counting.onnx_graph import count
from kind_bench.counting.work import ProgramWork
from kind_core.precisions import PrecisionName
from kind_core.schedule import SamplerTable, read_sampler_table
from kind_export.compact.model import CompactModel
from kind_export.report.model import count_step_flops
from kind_export.rewrites import RewriteOptions, rewrite, rewrite_base
from kind_export.targets.programs import make_step
from kind_export.targets.target import Lowering, TargetOptions, load_target
from kind_runtimes.manifest import ProgramSpec
from tiny import tiny_config, tiny_model, tiny_model_config

STEPS = 4
# With a tailor of one class built in, or looked up, live ranks are 32: whole groups, and large enough to be quantised.
_MODELS: dict[str, dict[str, Any]] = {
    "one class": {"num_classes": 1, "learngene_rank": 30},
    "several classes": {"num_classes": 3, "learngene_rank": 32},
    "dense matrices": {"num_classes": 1, "learngene_rank": 60},
    "dense, several classes": {"num_classes": 2, "learngene_rank": 60},
    "no learngene": {"num_classes": 2, "learngene_rank": None, "tailor_rank": 0},
}
_DEFAULTS: dict[str, PrecisionName] = {"onnx": "fp32", "coreml": "fp16", "executorch": "fp32"}
_LOW: list[tuple[str, PrecisionName]] = [
    ("onnx", "fp16"), ("onnx", "int8"), ("onnx", "int4"),
    ("executorch", "fp16"), ("executorch", "int8"), ("executorch", "int4"),
    ("coreml", "fp32"), ("coreml", "int8"), ("coreml", "int4"), ("coreml", "palette6"), ("coreml", "palette4"),
]  # fmt: skip


def _sampler() -> SamplerTable:
    config = tiny_model_config(noise_schedule="squaredcos_cap_v2", prediction_type="sample")
    return read_sampler_table(config.diffusion, "dpmpp", STEPS)


@cache
def _compact(model: str, **changes: Any) -> CompactModel:
    config = tiny_config(**{"hidden_size": 64, "depth": 1} | _MODELS[model] | changes)
    return rewrite(tiny_model(config), _sampler(), RewriteOptions())


def _lower(target: str, compact: CompactModel, precision: PrecisionName, folder: Path) -> tuple[Path, Lowering]:
    module, options = load_target(target), TargetOptions(precision=precision, min_ios=18)
    lowering, file = make_step(compact, module, options), folder / f"step{module.ROW.suffix}"
    module.lower(lowering, file, options)
    return file, lowering


def _spec(lowering: Lowering, function: str | None = None) -> ProgramSpec:
    return ProgramSpec(
        name=lowering.name, file="", inputs=lowering.inputs, outputs=lowering.outputs, function=function
    )  # fmt: skip


def _count(target: str, compact: CompactModel, precision: PrecisionName) -> ProgramWork:
    with tempfile.TemporaryDirectory() as folder:
        file, lowering = _lower(target, compact, precision, Path(folder))
        work = count_program(file, _spec(lowering), target)
        size = sum(path.stat().st_size for path in ([file] if file.is_file() else file.rglob("*")) if path.is_file())
    assert 0.3 * size < work.weight_bytes < size
    return work


@cache
def _count_model(target: str, model: str, precision: PrecisionName) -> ProgramWork:
    """Several tests look at the same program."""
    return _count(target, _compact(model), precision)


@pytest.mark.parametrize("target", _DEFAULTS)
@pytest.mark.parametrize("model", _MODELS)
def test_flops_are_those_of_the_model(model: str, target: str) -> None:
    work = _count_model(target, model, _DEFAULTS[target])
    assert work.flops() == pytest.approx(count_step_flops(_compact(model)), rel=0.02)


# the products of one class are among those of several, which come with gathered tailors
@pytest.mark.slow
@pytest.mark.parametrize(("target", "precision"), _LOW)
def test_fewer_bits_are_the_same_flops_and_fewer_bytes(target: str, precision: PrecisionName) -> None:
    model = "several classes"
    work = _count_model(target, model, precision)
    assert work.flops() == pytest.approx(count_step_flops(_compact(model)), rel=0.02)
    bits = {"fp32": 32, "fp16": 16, "int8": 8, "palette6": 6}.get(precision, 4)
    linear = [op for op in work.ops if op.op_class == "linear" and op.elements > 16 * 12 * 2]
    num_weights = sum(op.weight_bytes for op in _count_model("onnx", model, "fp32").ops if op.op_class == "linear") / 4
    stored = sum(op.weight_bytes for op in linear)
    # scales, biases, and what is kept higher come on top
    assert num_weights * bits / 8 * 0.7 < stored < num_weights * bits / 8 * 2
    if target != "coreml":
        integer = {op.precision for op in linear if op.flops > 2**16} & {"int8", "int4"}
        assert bool(integer) is (precision == "int8" or (target, precision) == ("executorch", "int4"))


def test_the_three_agree_on_more_than_flops() -> None:
    onnx, executorch, coreml = (
        _count_model(target, "several classes", "fp32") for target in ("onnx", "executorch", "coreml")
    )
    for work in (executorch, coreml):
        assert work.flops() == onnx.flops()
        assert work.flops("paper") == pytest.approx(onnx.flops("paper"), rel=0.02)
        assert work.weight_bytes == pytest.approx(onnx.weight_bytes, rel=0.02)
        assert work.peak_activation_bytes == pytest.approx(onnx.peak_activation_bytes, rel=0.05)
        assert work.bytes_moved == pytest.approx(onnx.bytes_moved, rel=0.25)


@pytest.mark.parametrize("target", _DEFAULTS)
def test_a_base_multiplies_by_the_pack_that_it_is_given(target: str) -> None:
    config = tiny_config(hidden_size=64, depth=1, num_classes=2, learngene_rank=32)
    base, _ = rewrite_base(tiny_model(config), _sampler(), 2)
    work = _count(target, base, _DEFAULTS[target])
    assert work.flops() == pytest.approx(count_step_flops(base), rel=0.02)
    attention = sum(op.flops for op in work.ops if op.op_class == "attention")
    assert attention == 4 * 16 * 16 * 64 * 2  # none of the tailor's products is taken for one of attention's


@pytest.mark.parametrize("target", _DEFAULTS)
def test_a_step_without_guidance_is_half_the_work(target: str, tmp_path: Path) -> None:
    compact, module = _compact("several classes"), load_target(target)
    options = TargetOptions(precision=_DEFAULTS[target], min_ios=18)
    step, unguided = (make_step(compact, module, options, is_guided=one) for one in (True, False))
    file = tmp_path / f"step{module.ROW.suffix}"
    _, functions = module.lower_pair(step, unguided, [False, True, True, False], file, options)
    guided_work = count_program(file, _spec(step, functions[step.name]), target)
    if target == "onnx":
        half = count(file, _spec(step), is_guided=False)
    else:
        half = count_program(file, _spec(unguided, functions[unguided.name]), target)
    assert guided_work.flops() == pytest.approx(count_step_flops(compact), rel=0.02)
    assert half.flops() == pytest.approx(guided_work.flops() / 2, rel=0.03)
    assert half.weight_bytes == pytest.approx(guided_work.weight_bytes, rel=0.02)


def test_ranks_filled_up_to_groups_of_four_bits_are_work_that_is_done() -> None:
    narrow, whole = (_compact("several classes", learngene_rank=rank) for rank in (12, 32))
    work = _count("executorch", narrow, "int4")
    assert count_step_flops(narrow) < 0.8 * count_step_flops(whole)
    assert work.flops() == pytest.approx(count_step_flops(whole), rel=0.02)
