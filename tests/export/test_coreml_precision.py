"""Core ML weights below fp16: what is saved is near the module, evaluates to what it says, and is told in the facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artifacts import make_reference, sampler_of
from torch import Tensor, nn

from kind_core.errors import ExportError
from kind_core.precisions import PrecisionName
from kind_export.rewrites import RewriteOptions, rewrite
from kind_export.targets.coreml.compression import find_layers, restore_module
from kind_export.targets.programs import make_step
from kind_export.targets.target import Lowering, TargetOptions, load_target
from kind_runtimes.coreml.evaluator import Evaluator
from kind_runtimes.coreml.package import CoreMLPackage
from kind_runtimes.manifest import TensorSpec
from tiny import tiny_config, tiny_model

INPUTS = (TensorSpec(name="x", shape=(2, 64), dtype="float32"),)
OUTPUTS = (TensorSpec(name="y", shape=(2, 64), dtype="float32"),)
# (precision, min_ios, the least signal-to-noise ratio of a weight in dB): Gaussian weights, 6 dB per bit
CASES: list[tuple[PrecisionName, int, float]] = [
    ("int8", 17, 38),
    ("int8", 18, 38),
    ("int4", 18, 20),
    ("palette6", 17, 30),
    ("palette6", 18, 32),
    ("palette4", 17, 19),
    ("palette4", 18, 19.5),
]

Lowered = Callable[[PrecisionName, int], tuple[Path, Any]]


class Small(nn.Module):
    """Two layers that are large enough, and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(64, 96), nn.Linear(96, 24), nn.Linear(24, 64)
        for layer in (self.first, self.second, self.third):
            nn.init.normal_(layer.weight, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.third(torch.tanh(self.second(torch.tanh(self.first(x)))))
        return y


@cache
def make_small() -> Lowering:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Small().eval()
    return Lowering(name="step", module=module, example=(torch.zeros(2, 64),), inputs=INPUTS, outputs=OUTPUTS)


def lower(
    lowering: Lowering, file: Path, precision: PrecisionName, min_ios: int = 17, keep: tuple[str, ...] = ()
) -> Any:
    options = TargetOptions(precision=precision, min_ios=min_ios, keep=frozenset(keep))
    return load_target("coreml").lower(lowering, file, options)


@pytest.fixture(scope="module")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    """`make_small` as a package, and its facts."""

    @cache
    def make(precision: PrecisionName, min_ios: int) -> tuple[Path, Any]:
        file = tmp_path_factory.mktemp("small") / "small.mlpackage"
        return file, lower(make_small(), file, precision, min_ios)

    return make


def measure_snr_db(module: nn.Module, name: str, lowering: Lowering) -> float:
    """Signal-to-noise ratio of a layer's weight in `module`; at most 200."""
    expected = lowering.module.get_submodule(name).weight.detach().double()
    error = (module.get_submodule(name).weight.detach().double() - expected).square().sum()
    return 10 * float(torch.log10(expected.square().sum() / error.clamp_min(1e-20 * expected.square().sum())))


def read_bytes(package: Path) -> Mapping[str, bytes]:
    return {str(x.relative_to(package)): x.read_bytes() for x in package.rglob("*") if x.is_file()}


@pytest.mark.parametrize(("precision", "min_ios", "floor_db"), CASES)
def test_package_computes_with_the_weights_it_holds(
    precision: PrecisionName, min_ios: int, floor_db: float, lowered: Lowered
) -> None:
    lowering, (file, facts) = make_small(), lowered(precision, min_ios)
    assert facts["compression"]["num_layers"] == 2
    assert facts["compression"]["kept"] == []
    restored = restore_module(lowering, file)
    for name in ("first", "second"):
        assert floor_db < measure_snr_db(restored, name, lowering) < 60  # near, and really compressed
    third = lowering.module.get_submodule("third").weight
    assert torch.equal(restored.get_submodule("third").weight, third.half().float())
    x = torch.randn(2, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, original = restored(x).numpy(), lowering.module(x).numpy()
    actual = Evaluator(CoreMLPackage.open(file), "fp32").run({"x": x.numpy()})["y"]
    np.testing.assert_allclose(actual, expected, atol=1e-3)  # biases in fp16
    assert np.abs(actual - original).max() > np.abs(actual - expected).max()


@pytest.mark.parametrize(("precision", "min_ios"), [("int8", 17), ("int4", 18), ("palette4", 18)])
def test_bytes_are_the_same_each_time(precision: PrecisionName, min_ios: int, lowered: Lowered, tmp_path: Path) -> None:
    first, _ = lowered(precision, min_ios)
    again = tmp_path / "again.mlpackage"
    lower(make_small(), again, precision, min_ios)
    assert read_bytes(first) == read_bytes(again)


def test_kept_layer_of_8_bits_stays_in_fp16(tmp_path: Path) -> None:
    lowering, file = make_small(), tmp_path / "small.mlpackage"
    facts = lower(lowering, file, "int8", keep=("second",))
    assert facts["compression"]["num_layers"] == 1
    assert facts["compression"]["kept"] == ["second"]
    restored, second = restore_module(lowering, file), lowering.module.get_submodule("second").weight
    assert torch.equal(restored.get_submodule("second").weight, second.half().float())
    assert measure_snr_db(restored, "first", lowering) < 60


@pytest.mark.parametrize(("precision", "min_ios"), [("palette4", 17), ("palette4", 18), ("int4", 18)])
def test_kept_layer_below_8_bits_has_8(precision: PrecisionName, min_ios: int, tmp_path: Path) -> None:
    lowering, file = make_small(), tmp_path / "small.mlpackage"
    facts = lower(lowering, file, precision, min_ios, keep=("second",))
    assert facts["compression"]["num_layers"] == 1
    restored = restore_module(lowering, file)
    assert 38 < measure_snr_db(restored, "second", lowering) < 60
    assert measure_snr_db(restored, "first", lowering) < 30


def test_unknown_layer_to_keep_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"step has no linear layer 'tenth' to keep, expected names like 'first'"):
        lower(make_small(), tmp_path / "small.mlpackage", "int8", keep=("tenth", "first"))


def test_program_without_layers_has_nothing_to_compress(tmp_path: Path) -> None:
    lowering = replace(make_small(), module=nn.Tanh())
    facts = lower(lowering, tmp_path / "tanh.mlpackage", "palette4", keep=("blocks.0.matrices.o.last",))
    assert "compression" not in facts


def test_equal_weights_are_one_constant(tmp_path: Path) -> None:
    """coremltools keeps one of equal constants, so a layer's own name may be gone."""
    module = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64)).eval()
    module[2].weight = nn.Parameter(module[0].weight.detach().clone())
    lowering, file = replace(make_small(), module=module), tmp_path / "twins.mlpackage"
    assert lower(lowering, file, "palette4", keep=("2",))["compression"]["num_layers"] == 0
    restored = restore_module(lowering, file)
    assert torch.equal(restored.get_submodule("0").weight, restored.get_submodule("2").weight)
    assert measure_snr_db(restored, "0", lowering) > 38  # the kept one decides for both


def test_layer_without_a_constant_is_named() -> None:
    constants = {"p_first_weight_to_fp16": (96, 64), "p_second_weight_to_fp16": (96, 24)}
    with pytest.raises(ExportError, match=r"no constant 'p_second_weight_to_fp16' of shape \(24, 96\).*'second'"):
        find_layers(constants, make_small())


@pytest.mark.parametrize("baking", ["on", "off"])
def test_every_layer_of_a_step_is_found(baking: str, tmp_path: Path) -> None:
    reference = make_reference(1)
    model = tiny_model(tiny_config(num_classes=1, depth=1, hidden_size=64))
    compact = rewrite(model, sampler_of(reference), RewriteOptions(baking=baking))
    target, file = load_target("coreml"), tmp_path / "step.mlpackage"
    lowering = make_step(compact, target, TargetOptions(precision="int8"))
    layers = {name: x for name, x in lowering.module.named_modules() if isinstance(x, nn.Linear)}
    large = [name for name, x in layers.items() if x.weight.numel() >= 2048]
    facts = lower(lowering, file, "int8", keep=tuple(large[:1]))
    assert facts["compression"]["num_layers"] == len(large) - 1 > 0
    restored = restore_module(lowering, file)
    for name in layers:
        assert 35 < measure_snr_db(restored, name, lowering) < (60 if name in large[1:] else 201), name
