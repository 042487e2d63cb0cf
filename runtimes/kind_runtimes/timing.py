"""A first measurement on this host: median latency of a step and of an image, per runtime."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from kind_runtimes.bundle import Bundle
from kind_runtimes.generator import Generator, open_generator

_WARMUP = 3
_REPEATS = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Milliseconds on this host. An image is `steps` steps and one decode; the spread is min to max of the repeats."""

    runtime: str
    engine: str
    step_ms: float
    step_min_ms: float
    step_max_ms: float
    image_ms: float
    load_ms: float
    repeats: int


def time_bundle(bundle: Bundle, file: Path, profiles: Mapping[str, object] | None = None) -> dict[str, Timing]:
    """Time every target that really runs here and write `measured.json`, with `profiles` of delegation by target.

    An evaluated program is not timed.
    """
    timings = {}
    for name in bundle.manifest.targets:
        start = time.perf_counter()
        generator = open_generator(bundle.path, bundle.manifest, name)
        load_ms = (time.perf_counter() - start) * 1e3
        if not hasattr(generator.step, "without_rounding"):
            timings[name] = _time_generator(name, generator, load_ms)
    host = {"system": platform.platform(terse=True), "processor": _processor(), "num_cpus": os.cpu_count()}
    data = {
        "kind": "measured",
        "host": host,
        "timings": {name: asdict(t) for name, t in timings.items()},
        "delegation": {name: profile for name, profile in (profiles or {}).items() if profile},
    }
    file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    return timings


def _time_generator(name: str, generator: Generator, load_ms: float) -> Timing:
    inputs = {
        spec.name: np.zeros(spec.shape, spec.dtype) for spec in generator.manifest.targets[name].programs["step"].inputs
    }
    indices = range(generator.manifest.steps)
    unguided = [index for index in indices if not generator.manifest.is_guided(index)]
    inputs["step_index"] = np.array([next((i for i in indices if i not in unguided), 0)], np.int32)
    state = {name: value for name, value in inputs.items() if name not in ("step_index", "guidance")}
    steps = _repeat(lambda: generator.step(inputs))
    unguided_ms = 0.0
    if unguided:
        unguided_ms = statistics.median(_repeat(lambda: generator.run_step(state, unguided[0], 1.0)))
    decode_ms = 0.0
    if generator.decode is not None:
        decode = generator.decode
        decode_ms = statistics.median(_repeat(lambda: decode({"latents": inputs["latents"]})))
    step_ms = statistics.median(steps)
    trajectory_ms = step_ms * (len(indices) - len(unguided)) + unguided_ms * len(unguided)
    return Timing(
        runtime=name, engine=generator.step.engine, step_ms=round(step_ms, 3), step_min_ms=round(min(steps), 3),
        step_max_ms=round(max(steps), 3), image_ms=round(trajectory_ms + decode_ms, 3),
        load_ms=round(load_ms, 1), repeats=_REPEATS,
    )  # fmt: skip


def _repeat(call: Callable[[], object]) -> list[float]:
    times = []
    for i in range(_WARMUP + _REPEATS):
        start = time.perf_counter()
        call()
        if i >= _WARMUP:
            times.append((time.perf_counter() - start) * 1e3)
    return times


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
