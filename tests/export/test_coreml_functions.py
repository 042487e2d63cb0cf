"""Core ML packages of several functions: each computes its own program, equal weights are stored once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kind_core.errors import BundleError
from kind_core.precisions import PrecisionName
from kind_export.targets.coreml.compression import restore_module
from kind_export.targets.coreml.lower import lower, lower_functions
from kind_export.targets.target import Lowering, TargetOptions
from kind_runtimes.engines.coreml import EvaluatedProgram
from kind_runtimes.manifest import ProgramSpec, TensorSpec

INPUTS = (TensorSpec(name="x", shape=(2, 128), dtype="float32"),)
OUTPUTS = (TensorSpec(name="y", shape=(2, 128), dtype="float32"),)
SPEC = ProgramSpec(name="step", file="", inputs=INPUTS, outputs=OUTPUTS)
X = np.random.default_rng(0).standard_normal((2, 128)).astype(np.float32)


class Scaled(nn.Module):
    """Two layers whose output is scaled; twice, which two of these have in common, or not."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.second = nn.Linear(128, 384), nn.Linear(384, 128)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(torch.tanh(self.first(x))) * self.scale
        return y


def make_lowerings() -> dict[str, Lowering]:
    return {
        name: Lowering(
            name=name, module=Scaled(scale).eval(), example=(torch.zeros(2, 128),), inputs=INPUTS, outputs=OUTPUTS
        )
        for name, scale in (("guided", 3.0), ("plain", 1.5))
    }


def run(file: Path, function: str | None = None) -> np.ndarray:
    return EvaluatedProgram(file, SPEC, function=function)({"x": X})["y"]


def size_bytes(package: Path, name: str = "*") -> int:
    return sum(x.stat().st_size for x in package.rglob(name) if x.is_file())


@pytest.fixture(scope="module")
def both_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[PrecisionName], tuple[Path, Any]]:
    """The package of both functions in a precision and what is said of it; not to be changed."""

    @cache
    def make(precision: PrecisionName) -> tuple[Path, Any]:
        file = tmp_path_factory.mktemp(precision) / "both.mlpackage"
        return file, lower_functions(make_lowerings(), file, TargetOptions(precision=precision, min_ios=18))

    return make


@pytest.mark.parametrize("precision", ["fp16", "int4", "palette4"])
def test_functions_share_their_weights(
    precision: PrecisionName, both_of: Callable[[PrecisionName], tuple[Path, Any]], tmp_path: Path
) -> None:
    lowerings, one = make_lowerings(), tmp_path / "one.mlpackage"
    both, facts = both_of(precision)
    lower(lowerings["plain"], one, TargetOptions(precision=precision, min_ios=18))
    assert list(facts["functions"]) == ["guided", "plain"]
    assert size_bytes(both, "weight.bin") < 1.01 * size_bytes(one, "weight.bin")
    np.testing.assert_array_equal(run(both, "plain"), run(one))
    np.testing.assert_array_equal(run(both), run(both, "guided"))
    np.testing.assert_allclose(run(both, "guided"), 2 * run(both, "plain"), rtol=2**-10)
    restored = [restore_module(lowerings["plain"], file, name) for file, name in ((both, "plain"), (one, None))]
    assert torch.equal(restored[0].first.weight, restored[1].first.weight)  # type: ignore[union-attr]


def test_weights_that_differ_are_not_shared(tmp_path: Path) -> None:
    lowerings, both = make_lowerings(), tmp_path / "both.mlpackage"
    other = Scaled(1.5).eval()
    other.second.weight.data.mul_(-1)
    lowerings["plain"] = replace(lowerings["plain"], module=other)
    lower_functions(lowerings, both, TargetOptions(precision="fp16", min_ios=18))
    weight_bytes = 2 * 128 * 384
    assert 3 * weight_bytes < size_bytes(both, "weight.bin") < 3.1 * weight_bytes
    with torch.no_grad():
        np.testing.assert_allclose(run(both, "plain"), other(torch.from_numpy(X)).numpy(), atol=0.01)


def test_bytes_are_the_same_each_time(both_of: Callable[[PrecisionName], tuple[Path, Any]], tmp_path: Path) -> None:
    first, again = both_of("palette4")[0], tmp_path / "again.mlpackage"
    lower_functions(make_lowerings(), again, TargetOptions(precision="palette4", min_ios=18))
    one, other = ({x.name: x.read_bytes() for x in file.rglob("*") if x.is_file()} for file in (first, again))
    assert one == other
    places = [str(file.parent).encode() for file in (first, again)]
    assert not any(place in content for place in places for content in one.values())


def test_unknown_function_is_named(both_of: Callable[[PrecisionName], tuple[Path, Any]]) -> None:
    file, _ = both_of("fp16")
    with pytest.raises(BundleError, match="has no function 'third'") as caught:
        run(file, "third")
    assert "guided, plain" in caught.value.hint
