"""What several classes in one program cost: step time and size of 1, 2 and 40 classes, and of a base with a pack.

    python tests/benchmarks/classes.py [--runtimes onnx executorch] [--depth 3] [--rounds 21]

`kind-b/2` cut to a few blocks, random weights (also in the layers that start at zero), fp32, 20 steps; modulation
tables at rank 4, which is what trained weights need. Calls are interleaved. The time is the CPU time of the process,
which other work on the machine changes less than the clock: onnxruntime on one thread, ExecuTorch on its own pool.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from kind_core.config import DiTConfig, preset
from kind_core.dit import KindDiT
from kind_core.schedule import read_sampler_table
from kind_export.compact.model import CompactModel
from kind_export.rewrites import RewriteOptions, rewrite, rewrite_base
from kind_export.rewrites.factor_modulations import factor_table, modulations
from kind_export.targets.programs import make_step
from kind_export.targets.target import TargetOptions, load_target
from kind_runtimes.engines.runtime import EngineOptions, open_program
from kind_runtimes.manifest import ProgramSpec

CLASSES = (1, 2, 40)
TABLE_RANK = 4
Call = Callable[[], object]


def make_models(depth: int) -> dict[str, CompactModel]:
    """By name: programs of built-in classes, and a base."""
    dit, diffusion = preset("kind-b/2")
    table = read_sampler_table(diffusion, "ddim", 20)
    models = {}
    for count in CLASSES:
        model = _make_model(replace(dit, num_classes=count, depth=depth))
        compact = rewrite(model, table, RewriteOptions(baking="on", table_error_db=1e9))
        values = modulations(compact)
        assert values is not None, "baking is on"
        low_rank = factor_table(values, 1e9, TABLE_RANK)
        models[f"{count} class{'es' if count > 1 else ''}"] = replace(compact, conditioning=low_rank)
    model = _make_model(replace(dit, num_classes=1, depth=depth))
    return models | {"base and pack": rewrite_base(model, table, dit.tailor_rank, TABLE_RANK)[0]}


@torch.no_grad()
def _make_model(dit: DiTConfig) -> KindDiT:
    torch.manual_seed(0)
    model = KindDiT(dit).eval()
    for parameter in model.parameters():
        if not parameter.any():
            parameter.normal_(std=0.02)
    return model


def build(runtime: str, compact: CompactModel, file: Path) -> Call:
    """Lower a step to `file` and return one run of it."""
    target, options = load_target(runtime), TargetOptions(precision="fp32")
    lowering = make_step(compact, target, options)
    target.lower(lowering, file, options)
    spec = ProgramSpec(name="step", file=file.name, inputs=lowering.inputs, outputs=lowering.outputs)
    program = open_program(runtime, file, spec, EngineOptions(threads=1 if runtime == "onnx" else None))
    generator = np.random.default_rng(0)
    inputs = {
        s.name: generator.standard_normal(s.shape).astype(s.dtype)
        if s.dtype == "float32"
        else np.zeros(s.shape, s.dtype)
        for s in lowering.inputs
    }
    return lambda: program(inputs)


def time_interleaved(calls: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of CPU time of each call; the first two rounds are not counted."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_number in range(rounds + 2):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if round_number >= 2:
                times[name].append((time.process_time() - start) * 1e3)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtimes", nargs="+", default=["onnx", "executorch"], choices=["onnx", "executorch"])
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=21)
    arguments = parser.parse_args()
    models = make_models(arguments.depth)
    for runtime in arguments.runtimes:
        with tempfile.TemporaryDirectory() as folder:
            files = {name: Path(folder) / f"{i}{load_target(runtime).ROW.suffix}" for i, name in enumerate(models)}
            calls = {name: build(runtime, compact, files[name]) for name, compact in models.items()}
            times = time_interleaved(calls, arguments.rounds)
            print(f"\n{runtime:16} {'MB':>7} {'CPU ms':>8}   against one class (median of pairs)")
            base = next(iter(times.values()))
            for name, own in times.items():
                ratio = statistics.median(o / b for o, b in zip(own, base, strict=True))
                size = files[name].stat().st_size / 1e6
                print(f"{name:16} {size:7.1f} {statistics.median(own):8.1f}   {ratio:.3f}x")


if __name__ == "__main__":
    main()
