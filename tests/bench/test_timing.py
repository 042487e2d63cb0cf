"""What a measurement holds; how fast it is depends on the machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kind_bench.measure import quick
from kind_bench.measure.quick import time_bundle
from kind_bench.results.results import read_results, round_ms
from kind_runtimes.bundle import Bundle
from kind_runtimes.documents.reports.targets import MeasuredHere
from small_bundles import STEPS


@pytest.fixture(scope="module")
def measured(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, MeasuredHere], Path]:
    file = tmp_path_factory.mktemp("timing") / "measured.json"
    return time_bundle(small_bundle, file), file


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML itself runs here")
def test_an_evaluated_program_is_not_timed(measured: tuple[dict[str, MeasuredHere], Path]) -> None:
    assert set(measured[0]) == {"onnx", "executorch"}


@pytest.mark.parametrize("runtime", ["onnx", "executorch"])
def test_times_hang_together(measured: tuple[dict[str, MeasuredHere], Path], runtime: str) -> None:
    result = measured[0][runtime]
    assert 0 < result["step_min_ms"] <= result["step_ms"] <= result["step_max_ms"]
    assert result["image_ms"] >= STEPS * result["step_ms"] - STEPS * 1e-3  # both are rounded
    assert result["load_ms"] > 0
    assert (result["runtime"], result["repeats"]) == (runtime, quick._COUNTS.repeat)


def test_the_file_says_the_same_and_on_which_host(measured: tuple[dict[str, MeasuredHere], Path]) -> None:
    timings, file = measured
    results = read_results(file)
    case = next(case for case in results.cases if case.runtime == "onnx")
    assert round_ms(case.step.median) == timings["onnx"]["step_ms"]
    assert case.engine.startswith("onnxruntime")
    assert case.data["process"] == "shared"
    assert {"system", "processor", "num_cpus"} <= set(results.machine)
