"""Where the time of a guided step goes, by the trace of its own runtime: `profile` of a results file."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from kind_bench.measure.timing import step_inputs
from kind_core.errors import TargetError
from kind_runtimes.documents.case import OpEntry, ProfileEntry
from kind_runtimes.engines.runtime import Arrays, EngineOptions
from kind_runtimes.loop import Loop
from kind_runtimes.manifest import ProgramSpec

_RUNS = 7  # the first of them is not counted
_XNNPACK, _PORTABLE = "XNNPACK", "portable"
_NATIVE_CALL = "native_call_"
_NUMBERING = re.compile(r" #\d+$")  # XNNPACK counts its operators of a type


@dataclass(frozen=True, kw_only=True, slots=True)
class OpRun:
    """One operator of one run."""

    op_type: str
    backend: str
    ms: float


def profile_step(folder: Path, loop: Loop, runtime: str, options: EngineOptions) -> ProfileEntry:
    """Trace a guided step of the first class; the file is opened anew, with the runtime's tracer on."""
    spec, inputs = _first_class(loop.spec, _guided_inputs(loop))
    file = folder / spec.file
    return _PROFILERS[runtime](file, spec, inputs, options)


def summarise_runs(tool: str, runs_ms: Sequence[float], runs: Sequence[Sequence[OpRun]]) -> ProfileEntry:
    """`profile` of a results file: medians over the runs of what the operators of a type took together."""
    sums: list[defaultdict[tuple[str, str], float]] = []
    for run in runs:
        sums.append(defaultdict(float))
        for op in run:
            sums[-1][op.op_type, op.backend] += op.ms
    counts = Counter((op.op_type, op.backend) for op in runs[-1])
    medians = {key: round(statistics.median(run[key] for run in sums), 4) for key in counts}
    return {
        "tool": tool,
        "run_ms": round(statistics.median(runs_ms), 4),
        "ops": [
            {"op_type": op_type, "backend": backend, "count": counts[op_type, backend], "ms": ms}
            for (op_type, backend), ms in sorted(medians.items(), key=lambda item: -item[1])
        ],
    }


def read_onnx_trace(events: Iterable[Mapping[str, Any]]) -> tuple[list[float], list[list[OpRun]]]:
    """Times of the runs in a trace of onnxruntime and the operators of each, without what they contain themselves.

    The first run, which warms up, is left out. The time of an `If` is that of its own, less its branch.
    """
    timed = [event for event in events if event.get("ph") == "X"]
    spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in timed if e["name"] == "model_run")[1:]
    nodes = [e for e in timed if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    # a parent before its children, which begin with it or later
    nodes.sort(key=lambda event: (event["ts"], -event["dur"]))
    runs = [[node for node in nodes if start <= node["ts"] < end] for start, end in spans]
    return [(end - start) / 1e3 for start, end in spans], [_own_times(run) for run in runs]


def read_etdump(events: Iterable[Any]) -> tuple[list[float], list[list[OpRun]]]:
    """Times of the runs that executorch's Inspector gives, and the operators of each.

    What XNNPACK does inside is named by its own operators where the trace has them; what is left of the delegate's time
    stands as `delegate`.
    """
    held = [event for event in events if event.perf_data is not None and len(event.perf_data.raw) > 1]
    runs_ms = next(event.perf_data.raw[1:] for event in held if event.name == "Method::execute")
    runs = []
    for i in range(1, len(runs_ms) + 1):
        inside = [
            OpRun(op_type=_NUMBERING.sub("", event.name), backend=_XNNPACK, ms=event.perf_data.raw[i])
            for event in held
            if event.is_delegated_op
        ]
        delegates = sum(event.perf_data.raw[i] for event in held if event.name == "DELEGATE_CALL")
        portable = [
            OpRun(op_type=_kernel_name(event.name), backend=_PORTABLE, ms=event.perf_data.raw[i])
            for event in held
            if event.name.startswith(_NATIVE_CALL)
        ]
        rest = max(0.0, delegates - sum(op.ms for op in inside))
        runs.append([*inside, OpRun(op_type="delegate", backend=_XNNPACK, ms=rest), *portable])
    return list(runs_ms), runs


def summarise_plan(operations: Iterable[Any]) -> ProfileEntry:
    """`profile` from what coremltools' MLModelBenchmarker says of each operation: the plan's shares of the run's time.

    The plan names the device that Core ML prefers for an operation; constants have none.
    """
    groups: defaultdict[tuple[str, str], list[Sequence[float]]] = defaultdict(list)
    for operation in operations:
        usage = operation.compute_device_usage
        if usage is not None:
            device = type(usage.preferred_compute_device).__name__
            groups[operation.spec.type, _device_name(device)].append(operation.measurement.samples)
    ms = {key: sum(statistics.median(one) for one in samples if one) for key, samples in groups.items()}
    total = sum(ms.values())
    ops = [
        {
            "op_type": key[0],
            "backend": key[1],
            "count": len(groups[key]),
            "ms": round(ms[key], 4),
            "share": round(ms[key] / total, 4) if total else None,
        }
        for key in sorted(groups, key=lambda key: -ms[key])
    ]
    neural = sum(ms[key] for key in groups if key[1] == "Neural Engine")
    share = {"delegate_share": round(neural / total, 4)} if total else {}
    described = {"tool": "MLComputePlan", "run_ms": round(total, 4) if total else None, **share, "ops": ops}
    return cast(ProfileEntry, described)


def _guided_inputs(loop: Loop) -> Arrays:
    flags = loop.sampling.guided
    index = flags.index(True) if True in flags else 0
    scalars = {
        "step_index": np.array([index], np.int32),
        "guidance": np.array([loop.sampling.guidance_scale], np.float32),
    }
    return {**step_inputs(loop), **scalars}


def _first_class(spec: ProgramSpec, inputs: Arrays) -> tuple[ProgramSpec, Arrays]:
    if spec.class_functions is not None:
        spec = replace(spec, function=next(iter(spec.class_functions.values())), class_functions=None)
    return spec, {tensor.name: inputs[tensor.name] for tensor in spec.inputs}


def _profile_onnx(file: Path, spec: ProgramSpec, inputs: Arrays, options: EngineOptions) -> ProfileEntry:
    from kind_runtimes.engines.onnx import OnnxProgram

    with tempfile.TemporaryDirectory() as folder:
        program = OnnxProgram(file, spec, options, Path(folder) / "trace")
        for _ in range(_RUNS):
            program(inputs)
        events = json.loads(program.end_trace().read_text(encoding="utf-8"))
    profile = summarise_runs("onnxruntime profiler", *read_onnx_trace(events))
    if options.provider is None:
        return profile
    return profile | {"delegate_share": _share(profile["ops"], options.provider)}


def _profile_executorch(file: Path, spec: ProgramSpec, inputs: Arrays, options: EngineOptions) -> ProfileEntry:
    from kind_bench.measure.executorch_trace import trace_method
    from kind_runtimes.engines.executorch import set_threads

    set_threads(options)
    profile = summarise_runs("ETDump", *read_etdump(trace_method(file, spec, inputs, spec.function)))
    return profile | {"delegate_share": _share(profile["ops"], _XNNPACK)}


def _profile_coreml(file: Path, spec: ProgramSpec, inputs: Arrays, options: EngineOptions) -> ProfileEntry:
    from kind_runtimes.engines.coreml import PredictedProgram, open_program
    from kind_runtimes.quiet import import_coremltools

    program = open_program(file, spec, spec.function, options=options)
    if not isinstance(program, PredictedProgram):
        raise TargetError("Core ML has no profile here: its stand-in says nothing about speed", "that needs a Mac")
    import_coremltools()
    from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker

    benchmarker = MLModelBenchmarker(program.model)
    plan = benchmarker.benchmark_operation_execution(inputs=inputs, iterations=_RUNS - 1, warmup=True)
    return summarise_plan(asyncio.run(plan))


def _own_times(nodes: Sequence[Mapping[str, Any]]) -> list[OpRun]:
    own = [float(node["dur"]) for node in nodes]
    parents: list[int] = []
    for i, node in enumerate(nodes):
        while parents and node["ts"] >= nodes[parents[-1]]["ts"] + nodes[parents[-1]]["dur"]:
            parents.pop()
        if parents:
            own[parents[-1]] -= node["dur"]
        parents.append(i)
    return [
        OpRun(
            op_type=node["args"]["op_name"],
            backend=node["args"].get("provider", "").removesuffix("ExecutionProvider") or "CPU",
            ms=max(0.0, us) / 1e3,
        )
        for node, us in zip(nodes, own, strict=True)
    ]


def _kernel_name(event: str) -> str:
    return event.removeprefix(_NATIVE_CALL).partition(".")[0]


def _device_name(type_name: str) -> str:
    names = {"MLNeuralEngineComputeDevice": "Neural Engine", "MLGPUComputeDevice": "GPU", "MLCPUComputeDevice": "CPU"}
    return names.get(type_name, type_name)


def _share(ops: Sequence[OpEntry], backend: str) -> float:
    """Of the time of all operators, what those of `backend` take."""
    total = sum(op["ms"] or 0.0 for op in ops)
    inside = sum(op["ms"] or 0.0 for op in ops if op["backend"].lower() == backend.lower())
    return round(inside / total, 4) if total else 0.0


_PROFILERS = {"onnx": _profile_onnx, "executorch": _profile_executorch, "coreml": _profile_coreml}
