"""How well a calibration forecasts models that it has not seen, on this host.

    python tests/benchmarks/forecast.py [--folder programs] [--save raw.json] [--rounds 40] [--threads 1] [--clock cpu]
    python tests/benchmarks/forecast.py --load raw.json          # fits again, measures nothing

A grid of models of random weights: size, tokens, live rank (which decides the form of each matrix), precision and
runtime. Every program runs a few steps in a row in each round, the first not counted, and rounds are interleaved; a
model's time is the first quartile of its rounds, which other work on the host changes less than the median. Half of
the grid, drawn by lot within each runtime and precision, fits the rates by `calibration.fit_measurements`; the other
half is forecast. The spread is what measuring the same model twice differs by: the first half of the rounds against
the second.

One thread by default: with two, each waits for the other, and on a shared host for whoever holds that one up.
`--clock cpu` takes the processor's time instead of the wall's.

To reach: median error <= max(10 %, 1.5 x the spread), 90 % of cases within 25 %. `--folder` keeps the programs, so that
an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kind_bench.counting.work import OpWork, ProgramWork
from kind_bench.forecasting.calibration import Calibration, Measurement, fit_measurements
from kind_bench.forecasting.devices import Device
from kind_bench.forecasting.forecast import forecast
from kind_runtimes.engines.runtime import EngineOptions, open_program
from kind_runtimes.manifest import ProgramSpec

STEPS_A_ROUND = 4
SAMPLER_STEPS = 20
# hidden size, depth, heads, side of the latents in patches of 2, live ranks as shares of the hidden size
SIZES = (
    (192, 2, 3, 16, (0.25, 0.9)),
    (256, 1, 4, 32, (0.2, 0.6)),
    (384, 1, 6, 16, (0.4, 0.85)),
    (512, 1, 8, 32, (0.2, 0.9)),
    (768, 1, 12, 32, (0.2, 0.6)),
    (1024, 1, 16, 16, (0.3, 0.7)),
)
PRECISIONS = ("fp32", "int8")
RUNTIMES = ("onnx", "executorch")
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
HOST = Device(id="host", name="this host", vendor="host", form="computer")
Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One program of the grid."""

    name: str
    runtime: str
    precision: str
    size: tuple[int, int, int, int]
    rank: int


@dataclass(kw_only=True, slots=True)
class Sample:
    """What is known of a case: its work and the median milliseconds a step of each round."""

    case: Case
    work: ProgramWork
    rounds_ms: list[float]

    @property
    def ms(self) -> float:
        return _first_quartile(self.rounds_ms)

    @property
    def spread(self) -> float:
        """How much measuring it again differed."""
        half = len(self.rounds_ms) // 2
        first, second = _first_quartile(self.rounds_ms[:half]), _first_quartile(self.rounds_ms[half:])
        return abs(first - second) / min(first, second)


def _first_quartile(times: Sequence[float]) -> float:
    return float(np.quantile(times, 0.25))


def grid() -> Iterator[Case]:
    for hidden, depth, heads, side, shares in SIZES:
        for share in shares:
            rank = round(hidden * share / 8) * 8
            for runtime in RUNTIMES:
                for precision in PRECISIONS:
                    name = f"{hidden}x{depth}-{side}-r{rank}-{precision}-{runtime}"
                    size = (hidden, depth, heads, side)
                    yield Case(name=name, runtime=runtime, precision=precision, size=size, rank=rank)


def build(case: Case, folder: Path) -> tuple[Path, ProgramSpec]:
    """Lower a case to a file, unless it is there."""
    import torch

    from kind_core.config import DiffusionConfig, DiTConfig
    from kind_core.dit import KindDiT
    from kind_core.schedule import read_sampler_table
    from kind_export.rewrites import RewriteOptions, rewrite
    from kind_export.targets.programs import make_step
    from kind_export.targets.target import TargetOptions, load_target

    hidden, depth, heads, side = case.size
    dit = DiTConfig(
        sample_size=side, patch_size=2, in_channels=4, hidden_size=hidden, depth=depth, num_heads=heads, num_classes=1,
        learngene_rank=case.rank - 2, tailor_rank=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = KindDiT(dit).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    compact = rewrite(model, read_sampler_table(DiffusionConfig(), "ddim", SAMPLER_STEPS), RewriteOptions())
    target = load_target(case.runtime)
    options = TargetOptions(precision=case.precision)  # type: ignore[arg-type]
    lowering = make_step(compact, target, options)
    file = folder / f"{case.name}{target.ROW.suffix}"
    if not file.exists():
        partial = file.with_suffix(".partial")
        target.lower(lowering, partial, options)
        partial.rename(file)
    return file, ProgramSpec(name="step", file=file.name, inputs=lowering.inputs, outputs=lowering.outputs)


def open_call(case: Case, file: Path, spec: ProgramSpec, threads: int) -> Call:
    """One step on random latents."""
    generator = np.random.default_rng(0)
    inputs = {
        s.name: generator.standard_normal(s.shape).astype(s.dtype) if len(s.shape) > 1 else np.zeros(s.shape, s.dtype)
        for s in spec.inputs
    }
    program = open_program(case.runtime, file, spec, EngineOptions(threads=threads))
    return lambda: program(inputs)


def measure(folder: Path, rounds: int, save: Path | None, clock: str, threads: int) -> list[Sample]:
    """Build, count and time the grid."""
    from kind_bench.counting import count_program

    samples, calls = [], []
    for case in grid():
        started = time.perf_counter()
        file, spec = build(case, folder)
        work = count_program(file, spec, case.runtime)
        samples.append(Sample(case=case, work=work, rounds_ms=[]))
        calls.append(open_call(case, file, spec, threads))
        print(f"{case.name}: ready after {time.perf_counter() - started:.1f} s", file=sys.stderr)
    for number in range(rounds + 1):
        for sample, call in zip(samples, calls, strict=True):
            times = [_time_ms(call, CLOCKS[clock]) for _ in range(STEPS_A_ROUND)][1:]
            if number:  # the first round warms up
                sample.rounds_ms.append(statistics.median(times))
        print(f"round {number} of {rounds}", file=sys.stderr)
        if save is not None and number >= 2:
            write_samples(save, samples)
    return samples


def _time_ms(call: Call, clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return (clock() - start) * 1e3


def write_samples(file: Path, samples: Sequence[Sample]) -> None:
    host = {"processor": platform.processor(), "num_cpus": os.cpu_count(), "load": os.getloadavg()[0]}
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps({"host": host, "samples": [asdict(sample) for sample in samples]}))
    partial.replace(file)


def read_samples(file: Path) -> list[Sample]:
    return [_parse_sample(entry) for entry in json.loads(file.read_text())["samples"]]


def _parse_sample(entry: dict[str, Any]) -> Sample:
    ops = tuple(OpWork(**op) for op in entry["work"]["ops"])
    case = Case(**{**entry["case"], "size": tuple(entry["case"]["size"])})
    return Sample(case=case, work=ProgramWork(**{**entry["work"], "ops": ops}), rounds_ms=entry["rounds_ms"])


def split(samples: Sequence[Sample], seed: int) -> tuple[list[Sample], list[Sample]]:
    """Two halves by lot, even within each runtime and precision."""
    lot, halves = random.Random(seed), ([], [])  # type: ignore[var-annotated]
    for runtime in RUNTIMES:
        for precision in PRECISIONS:
            group = [s for s in samples if (s.case.runtime, s.case.precision) == (runtime, precision)]
            lot.shuffle(group)
            for i, sample in enumerate(group):
                halves[i % 2].append(sample)
    return halves


def fit(samples: Sequence[Sample]) -> Calibration:
    return fit_measurements([Measurement(work=sample.work, ms=sample.ms) for sample in samples])


def errors_of(samples: Sequence[Sample], calibration: Calibration) -> list[float]:
    """(forecast - measured) / measured."""
    return [_likely_ms(sample, calibration) / sample.ms - 1 for sample in samples]


def _likely_ms(sample: Sample, calibration: Calibration) -> float:
    likely_ms = forecast(sample.work, HOST, calibration=calibration).likely_ms
    assert likely_ms is not None
    return likely_ms


def print_result(samples: Sequence[Sample], seed: int) -> bool:
    """The held-out half, one row a model, and the verdict."""
    fitted, held = split(samples, seed)
    calibration = fit(fitted)
    print(f"{'model':34}{'measured':>10} {'forecast':>10} {'error':>7} {'re-measured':>12}")
    for sample, error in zip(held, errors_of(held, calibration), strict=True):
        print(
            f"{sample.case.name:34}{sample.ms:>7.2f} ms {_likely_ms(sample, calibration):>7.2f} ms {error:>+7.1%}"
            f" {sample.spread:>12.1%}"
        )
    for rates in calibration.rates:
        used = {name: round(rates.ms_per[name], 4) for name in rates.measured}
        print(f"{rates.runtime}: left out of the fit {rates.median_error or 0:.1%} median, rates {used}")
    median, p90, spread = summarise(samples, seed)
    allowed = max(0.10, 1.5 * spread)
    print(f"{len(fitted)} models fitted, {len(held)} forecast: median error {median:.1%}, 90th percentile {p90:.1%}")
    print(f"spread of re-measuring {spread:.1%}; to reach: median <= {allowed:.1%}, 90th percentile <= 25 %")
    others = [summarise(samples, other) for other in range(20)]
    print(f"20 other lots: median error {statistics.median(o[0] for o in others):.1%} "
          f"({min(o[0] for o in others):.1%} to {max(o[0] for o in others):.1%}), 90th percentile "
          f"{statistics.median(o[1] for o in others):.1%} ({min(o[1] for o in others):.1%} to "
          f"{max(o[1] for o in others):.1%})")  # fmt: skip
    return median <= allowed and p90 <= 0.25


def summarise(samples: Sequence[Sample], seed: int) -> tuple[float, float, float]:
    """Median and 90th percentile of the error of the held-out half, and the median spread of the grid."""
    fitted, held = split(samples, seed)
    errors = np.abs(errors_of(held, fit(fitted)))
    return float(np.median(errors)), float(np.quantile(errors, 0.9)), statistics.median(s.spread for s in samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep the programs here")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--save", type=Path, help="write the raw measurements here")
    parser.add_argument("--load", type=Path, help="fit to these measurements instead of measuring")
    parser.add_argument("--seed", type=int, default=0, help="of the lot")
    arguments = parser.parse_args()
    if arguments.load:
        samples = read_samples(arguments.load)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            folder = arguments.folder or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            samples = measure(folder, arguments.rounds, arguments.save, arguments.clock, arguments.threads)
    sys.exit(0 if print_result(samples, arguments.seed) else 1)


if __name__ == "__main__":
    main()
