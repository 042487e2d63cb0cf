"""8-bit and 4-bit weights on ExecuTorch, and several methods in one file."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kind_bench.measure.executorch_trace import profile_delegation
from kind_core.closeness import psnr_db
from kind_core.dit import KindDiT
from kind_core.errors import BundleError, ExportError
from kind_core.precisions import PrecisionName
from kind_core.schedule import read_sampler_table
from kind_export.compact.layers import Norm
from kind_export.compact.step import PairLinear, StepProgram
from kind_export.rewrites import RewriteOptions, rewrite
from kind_export.targets.executorch import lower as executorch
from kind_export.targets.executorch.quantization import GROUP_SIZE, pad_for_groups, quantize
from kind_export.targets.programs import make_step
from kind_export.targets.target import Facts, Lowering, TargetOptions
from kind_runtimes.engines.executorch import open_program
from kind_runtimes.manifest import ProgramSpec, TensorSpec
from tiny import tiny_config, tiny_model, tiny_model_config

WIDTH, TOKENS = 64, 16
Lowered = Callable[[PrecisionName], tuple[Path, Facts]]


class Layers(nn.Module):
    """A norm, then matrix products that end in an output layer."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.norm = Norm(WIDTH, "matmul")
        self.first, self.second = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.final = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.final(x + self.second(F.gelu(self.first(self.norm(x)), approximate="tanh"))),)


def lowering_of(module: nn.Module, batch: int = 2) -> Lowering:
    x, y = (TensorSpec(name=name, shape=(batch, TOKENS, WIDTH), dtype="float32") for name in ("x", "y"))
    example = (torch.zeros(batch, TOKENS, WIDTH),)
    return Lowering(name="step", module=module.eval(), example=example, inputs=(x,), outputs=(y,))


def spec_of(lowering: Lowering) -> ProgramSpec:
    return ProgramSpec(name="step", file="step.pte", inputs=lowering.inputs, outputs=lowering.outputs)


def noise(lowering: Lowering) -> Tensor:
    return torch.randn(lowering.example[0].shape, generator=torch.Generator().manual_seed(1))


def options(precision: PrecisionName, *keep: str) -> TargetOptions:
    return TargetOptions(precision=precision, keep=frozenset(keep))


@pytest.fixture(scope="module")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    """`Layers` as a program of its own."""

    @cache
    def lower(precision: PrecisionName) -> tuple[Path, Facts]:
        file = tmp_path_factory.mktemp(precision) / "step.pte"
        return file, executorch.lower(lowering_of(Layers()), file, options(precision))

    return lower


@cache
def tiny_step() -> Lowering:
    """A step whose matrices are factored, at a rank that fills no group."""
    dit = tiny_config(num_classes=1, depth=1, hidden_size=96, learngene_rank=40)
    config = tiny_model_config(dit, noise_schedule="squaredcos_cap_v2", prediction_type="sample")
    model: KindDiT = tiny_model(dit)
    compact = rewrite(model, read_sampler_table(config.diffusion, "dpmpp", 4), RewriteOptions())
    return make_step(compact, executorch, options("fp32"))


@torch.no_grad()
def run_step(module: nn.Module) -> np.ndarray:
    latents = torch.randn(tiny_step().example[0].shape, generator=torch.Generator().manual_seed(2))
    history, step_index, class_index, guidance = tiny_step().example[1:]
    output: Tensor = module(latents, history, step_index + 1, class_index, guidance + 2)[0]
    return output.numpy()


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: layer.weight for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}


def bits_of(module: nn.Module) -> dict[str, int]:
    """Bits of every linear's weights, by the integers that they hold."""
    found = {}
    for name, weight in weights_of(module).items():
        integers = getattr(weight, "qdata", None)
        found[name] = 32 if integers is None else 4 if int(integers.abs().max()) <= 8 else 8
    return found


@pytest.mark.parametrize(("precision", "least_db"), [("int8", 35.0), ("int4", 20.0)])
def test_a_quantised_step_is_close_and_the_given_one_untouched(precision: PrecisionName, least_db: float) -> None:
    before = copy.deepcopy(tiny_step().module.state_dict())
    quantized, facts = quantize(tiny_step(), options(precision))
    reference, result = run_step(tiny_step().module), run_step(quantized.module)
    assert least_db < psnr_db(reference, result) < 100
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny_step().module.state_dict().items())
    assert facts["quantization"]["num_layers"] > 4


def test_the_asked_layers_are_quantised_and_no_others() -> None:
    quantized, facts = quantize(tiny_step(), options("int4", "blocks.0.matrices.up.last"))
    bits = bits_of(quantized.module)
    assert bits["blocks.0.matrices.up.last"] == 8
    assert bits["final"] == 32
    assert bits["blocks.0.matrices.down.last"] == 4
    assert facts["quantization"]["num_layers"] == sum(own == 4 for own in bits.values())
    assert facts["quantization"]["kept"] == ["blocks.0.matrices.up.last"]
    assert set(facts["quantization"]["small"]) == {name for name, own in bits.items() if own == 32}


def test_kept_layers_stay_in_floating_point_at_8_bit() -> None:
    name = "blocks.0.matrices.o.last"
    assert bits_of(quantize(tiny_step(), options("int8"))[0].module)[name] == 8
    module = quantize(tiny_step(), options("int8", name))[0].module
    assert torch.equal(weights_of(module)[name], weights_of(tiny_step().module)[name])


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_an_unknown_layer_cannot_be_kept(precision: PrecisionName) -> None:
    with pytest.raises(ExportError, match=r"blocks\.9\.up"):
        quantize(tiny_step(), options(precision, "blocks.9.up"))


def test_padding_ranks_to_whole_groups_changes_no_number() -> None:
    module = copy.deepcopy(tiny_step().module)
    ranks = [pair.last.in_features for pair in module.modules() if isinstance(pair, PairLinear) and pair.down]
    assert any(rank % GROUP_SIZE for rank in ranks)
    pad_for_groups(module)
    pairs = [pair for pair in module.modules() if isinstance(pair, PairLinear) and pair.down]
    assert all(pair.last.in_features % GROUP_SIZE == 0 for pair in pairs)
    assert psnr_db(run_step(tiny_step().module), run_step(module)) > 110


def test_floating_point_passes_through() -> None:
    assert isinstance(tiny_step().module, StepProgram)
    assert quantize(tiny_step(), options("fp32")) == (tiny_step(), {})


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_quantised_program_is_one_delegate_and_equals_eager(
    precision: PrecisionName, lowered: Lowered, tmp_path: Path
) -> None:
    lowering = lowering_of(Layers())
    quantized = quantize(lowering, options(precision))[0].module
    file, facts = lowered(precision)
    executorch.lower(lowering, tmp_path / "again.pte", options(precision))
    assert file.read_bytes() == (tmp_path / "again.pte").read_bytes()
    assert facts["num_delegates"] == 1
    assert facts["portable_ops"] == {}
    assert facts["quantization"]["num_layers"] == 2
    x = noise(lowering)
    result = open_program(file, spec_of(lowering))({"x": x.numpy()})["y"]
    with torch.no_grad():
        # 4-bit scales are bfloat16 in the file
        assert psnr_db(quantized(x)[0].numpy(), result) > 45
        assert psnr_db(lowering.module(x)[0].numpy(), result) < 100
    profile = profile_delegation(file, spec_of(lowering), {"x": x.numpy()})
    assert 0 < profile.delegate_share <= 1


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_methods_of_one_file_share_their_weights(precision: PrecisionName, lowered: Lowered, tmp_path: Path) -> None:
    module = Layers()
    pair, single = lowering_of(module, batch=2), lowering_of(module, batch=1)
    file, (alone, _) = tmp_path / "step.pte", lowered(precision)
    twins = replace(pair, name="guided"), replace(single, name="unguided")
    facts, functions = executorch.lower_pair(*twins, (True, False), file, options(precision))
    assert functions == {"guided": "forward", "unguided": "unguided"}
    assert {name: own["num_delegates"] for name, own in facts["functions"].items()} == {"guided": 1, "unguided": 1}
    weight_bytes = sum(p.numel() for p in module.parameters()) * {"fp32": 4, "int8": 1, "int4": 0.5}[precision]
    assert file.stat().st_size - alone.stat().st_size < weight_bytes / 2
    for function, lowering in ((None, pair), ("unguided", single)):
        x = noise(lowering)
        result = open_program(file, spec_of(lowering), function)({"x": x.numpy()})["y"]
        with torch.no_grad():
            expected = quantize(lowering, options(precision))[0].module(x)[0].numpy()
        assert psnr_db(expected, result) > 45


def test_a_method_that_is_not_there_is_named(tmp_path: Path) -> None:
    lowering = lowering_of(nn.Sequential(nn.Linear(WIDTH, WIDTH), _Tuple()))
    executorch.lower(lowering, tmp_path / "step.pte", options("fp32"))
    with pytest.raises(BundleError, match="unguided"):
        open_program(tmp_path / "step.pte", spec_of(lowering), "unguided")


class _Tuple(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x,)


def test_quantisation_left_outside_the_delegate_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackFloatingPointPartitioner

    monkeypatch.setattr(executorch, "XnnpackPartitioner", XnnpackFloatingPointPartitioner)
    with pytest.raises(ExportError, match="torchao::choose_qparams_affine"):
        executorch.lower(lowering_of(Layers()), tmp_path / "step.pte", options("int8"))
    assert not (tmp_path / "step.pte").exists()
