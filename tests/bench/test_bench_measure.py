"""The parts that are timed, the traces that are read, and memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kind_bench.measure.gathering import Gathering
from kind_bench.measure.memory import begin_peak, drop_files, file_cache, read_peak
from kind_bench.measure.profiles import (
    OpRun,
    _first_class,
    read_etdump,
    read_onnx_trace,
    summarise_plan,
    summarise_runs,
)
from kind_bench.measure.timing import Counts, measure_loop, step_inputs
from kind_core.errors import TargetError
from kind_runtimes.bundle import Bundle, open_bundle
from kind_runtimes.engines.runtime import DEFAULT_OPTIONS, EngineOptions, Program, open_program
from kind_runtimes.generator import Generator, open_generator
from small_bundles import STEPS, program_specs, write_manifest


@dataclass
class Spy:
    """A program that notes what it is called with."""

    program: Program
    calls: list[Mapping[str, np.ndarray]]
    engine: str = "a spy"

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.calls.append(dict(inputs))
        return self.program(inputs)


@pytest.fixture
def some_guided(copy_bundle: Callable[[], Path]) -> Bundle:
    folder = copy_bundle()
    write_manifest(folder, ["onnx"], guided_steps=[2])
    return open_bundle(folder)


def _spied(bundle: Bundle) -> tuple[Generator, Spy]:
    generator = open_generator(bundle.path, bundle.manifest, "onnx")
    spy = Spy(program=generator.step, calls=[])
    return replace(generator, step=spy), spy


def _measure(generator: Generator, counts: Counts) -> dict[str, list[float]]:
    parts: dict[str, list[float]] = {}
    measure_loop(generator, counts, lambda part, samples: parts.setdefault(part, []).extend(samples))
    return parts


def test_every_part_is_called_as_often_as_asked(small_bundle: Bundle) -> None:
    generator, spy = _spied(small_bundle)
    parts = _measure(generator, Counts(warmup=2, repeat=5, images=3))
    assert {part: len(samples) for part, samples in parts.items()} == {"step": 5, "decode": 5, "whole_image": 3}
    assert all(sample > 0 for samples in parts.values() for sample in samples)
    assert len(spy.calls) == 2 + 5 + 3 * STEPS


def test_steps_with_and_without_guidance_are_told_apart(some_guided: Bundle) -> None:
    generator, spy = _spied(some_guided)
    parts = _measure(generator, Counts(warmup=0, repeat=2))
    assert {part: len(samples) for part, samples in parts.items()} == {"step": 2, "step_unguided": 2, "decode": 2}
    assert [int(call["step_index"][0]) for call in spy.calls] == [2, 2, 0, 0]


def test_a_warm_machine_has_worked_for_as_long_as_asked(small_bundle: Bundle) -> None:
    generator, spy = _spied(small_bundle)
    start = time.perf_counter()
    parts = _measure(generator, Counts(warmup=0, repeat=3, sustain_s=0.3))
    assert time.perf_counter() - start >= 0.3
    assert len(parts["sustained"]) == 3
    assert len(spy.calls) > 50


def test_a_step_starts_from_noise_as_in_a_real_run(small_bundle: Bundle) -> None:
    latents = step_inputs(open_generator(small_bundle.path, small_bundle.manifest, "onnx"))["latents"]
    scale = small_bundle.manifest.sampling.initial_noise_scale
    assert latents.std() == pytest.approx(scale, rel=0.1)
    assert latents.dtype == np.float32


def test_a_picture_waits_for_all_its_parts(some_guided: Bundle) -> None:
    gathering = Gathering(runtime="onnx", options=DEFAULT_OPTIONS, counts=Counts())
    assert gathering.to_case(some_guided.manifest) is None
    images = []
    for part, ms in (("step", 5.0), ("step_unguided", 3.0), ("decode", 1.0)):
        gathering.add_samples(part, [ms])  # type: ignore[arg-type]
        case = gathering.to_case(some_guided.manifest)
        assert case is not None
        images.append(case.get("image_ms"))
    assert images == [None, None, 5.0 + (STEPS - 1) * 3.0 + 1.0]


def test_the_largest_memory_of_the_processes_counts(small_bundle: Bundle) -> None:
    gathering = Gathering(runtime="onnx", options=DEFAULT_OPTIONS, counts=Counts())
    for peak in (5, 7, 6):
        gathering.add_memory({"peak_memory_bytes": peak, "baseline_memory_bytes": peak - 4, "memory_measure": "VmHWM"})
    assert gathering.memory == {"peak_memory_bytes": 7, "baseline_memory_bytes": 3, "memory_measure": "VmHWM"}


def test_memory_that_was_given_back_counts_in_the_peak() -> None:
    before = begin_peak()
    held = bytearray(os.urandom(1 << 20) * 64)
    del held
    peak = read_peak()
    assert peak.measure == before.measure
    assert peak.bytes - before.bytes > 60 << 20


def test_a_file_that_was_read_is_warm_until_it_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(os.urandom(1 << 20))
    os.sync()
    file.read_bytes()
    assert file_cache([file]) in ("warm", "unknown")
    drop_files([file])
    assert file_cache([file]) in ("cold", "unknown")


def _event(name: str, start: int, duration: int, **more: Any) -> dict[str, Any]:
    return {"ph": "X", "name": name, "ts": start, "dur": duration, **more}


def _node(op: str, start: int, duration: int, provider: str = "CPUExecutionProvider") -> dict[str, Any]:
    arguments = {"op_name": op, "provider": provider}
    return _event(f"{op}_kernel_time", start, duration, cat="Node", args=arguments)


def test_onnx_traces_leave_out_the_first_run_and_what_branches_hold() -> None:
    events = [
        _event("model_run", 0, 9000), _node("MatMul", 10, 8000),
        _event("model_run", 10000, 1000), _node("MatMul", 10100, 300), _node("If", 10400, 500),
        _node("MatMul", 10450, 200), _node("Add", 10700, 100, "CoreMLExecutionProvider"),
        {"ph": "X", "name": "session_initialization", "ts": 0, "dur": 5, "cat": "Session"},
    ]  # fmt: skip
    runs_ms, runs = read_onnx_trace(events)
    assert runs_ms == [1.0]
    profile = summarise_runs("a trace", runs_ms, runs)
    assert profile["ops"] == [
        {"op_type": "MatMul", "backend": "CPU", "count": 2, "ms": 0.5},
        {"op_type": "If", "backend": "CPU", "count": 1, "ms": 0.2},
        {"op_type": "Add", "backend": "CoreML", "count": 1, "ms": 0.1},
    ]


def test_operators_are_medians_over_the_runs() -> None:
    runs = [
        [OpRun(op_type="Add", backend="CPU", ms=ms), OpRun(op_type="Add", backend="CPU", ms=1.0)] for ms in (1, 2, 9)
    ]
    profile = summarise_runs("a trace", [1.0, 2.0, 3.0], runs)
    assert profile == {
        "tool": "a trace", "run_ms": 2.0, "ops": [{"op_type": "Add", "backend": "CPU", "count": 2, "ms": 3.0}]
    }  # fmt: skip


def test_etdumps_tell_the_delegate_s_operators_from_portable_ones() -> None:
    def event(name: str, *raw: float, inside: bool = False) -> SimpleNamespace:
        return SimpleNamespace(name=name, is_delegated_op=inside, perf_data=SimpleNamespace(raw=list(raw)))

    events = [
        event("Method::init", 50.0),  # once: no run
        event("Method::execute", 9.0, 2.0), event("DELEGATE_CALL", 8.0, 1.5),
        event("Fully Connected #1", 7.0, 0.5, inside=True), event("Fully Connected #2", 7.0, 0.75, inside=True),
        event("native_call_index_select.out", 0.5, 0.25),
        SimpleNamespace(name="no time", is_delegated_op=False, perf_data=None),
    ]  # fmt: skip
    runs_ms, runs = read_etdump(events)
    assert runs_ms == [2.0]
    assert runs == [
        [
            OpRun(op_type="Fully Connected", backend="XNNPACK", ms=0.5),
            OpRun(op_type="Fully Connected", backend="XNNPACK", ms=0.75),
            OpRun(op_type="delegate", backend="XNNPACK", ms=0.25),
            OpRun(op_type="index_select", backend="portable", ms=0.25),
        ]
    ]


class MLNeuralEngineComputeDevice:
    """Named as coremltools names it."""


class MLCPUComputeDevice:
    """The same."""


def test_core_ml_s_plan_names_devices_and_shares() -> None:
    def operation(op_type: str, device: object | None, *samples: float) -> SimpleNamespace:
        usage = None if device is None else SimpleNamespace(preferred_compute_device=device)
        return SimpleNamespace(
            spec=SimpleNamespace(type=op_type),
            compute_device_usage=usage,
            measurement=SimpleNamespace(samples=list(samples)),
        )

    neural, cpu = MLNeuralEngineComputeDevice(), MLCPUComputeDevice()
    profile = summarise_plan([
        operation("const", None), operation("linear", neural, 1.0, 2.0, 3.0), operation("linear", neural, 4.0),
        operation("gather", cpu, 2.0), operation("cast", cpu),
    ])  # fmt: skip
    assert profile["tool"] == "MLComputePlan"
    assert profile["run_ms"] == 8.0
    assert profile["delegate_share"] == 0.75
    assert profile["ops"][0] == {
        "op_type": "linear", "backend": "Neural Engine", "count": 2, "ms": 6.0, "share": 0.75
    }  # fmt: skip
    assert {op["op_type"] for op in profile["ops"]} == {"linear", "gather", "cast"}


def test_of_functions_of_classes_the_first_is_profiled() -> None:
    spec = program_specs("coreml")["step"]
    inputs = tuple(tensor for tensor in spec.inputs if tensor.name != "class_index")
    several = replace(spec, inputs=inputs, class_functions={"n1": "panda", "n2": "koala"})
    arrays = {tensor.name: np.zeros(tensor.shape, tensor.dtype) for tensor in spec.inputs}
    chosen, given = _first_class(several, arrays)
    assert (chosen.function, chosen.class_functions) == ("panda", None)
    assert set(given) == {tensor.name for tensor in inputs}


@pytest.mark.parametrize(
    ("runtime", "options", "message"),
    [
        ("executorch", EngineOptions(provider="NPU"), "backend is fixed when it is exported"),
        ("onnx", EngineOptions(provider="Quantum"), "no provider 'Quantum'"),
        ("coreml", EngineOptions(threads=2), "chooses them itself"),
    ],
)
def test_options_that_a_runtime_does_not_have_are_refused(
    small_bundle: Bundle, runtime: str, options: EngineOptions, message: str
) -> None:
    spec = small_bundle.manifest.target(runtime).programs["step"]
    with pytest.raises(TargetError, match=message):
        open_program(runtime, small_bundle.path / spec.file, spec, options)


def test_threads_do_not_change_the_result(small_bundle: Bundle) -> None:
    for runtime in ("onnx", "executorch"):
        spec = small_bundle.manifest.target(runtime).programs["decode"]
        latents = np.linspace(-1, 1, 768, dtype=np.float32).reshape(1, 3, 16, 16)
        images = [
            open_program(runtime, small_bundle.path / spec.file, spec, EngineOptions(threads=count))(
                {"latents": latents}
            )
            for count in (1, 2)
        ]
        assert np.array_equal(images[0]["image"], images[1]["image"])
