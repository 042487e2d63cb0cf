"""Size and speed of compact KIND programs against diffusers' dense DiT-B/2, side by side in one run.

    python tests/benchmarks/compact.py [--runtimes onnx executorch coreml] [--rounds 6] [--keep FOLDER]
      [--models kind-mobile] [--precisions fp32 int8] [--threads 1 --clock cpu] [--json]

Random weights (also in the layers that start at zero), one class, 20 steps, 2 threads. The peer is diffusers'
`DiTTransformer2DModel` of DiT-B/2, exported in each tool's ordinary way and called with a batch of two, as its pipeline
does; its scheduler and guidance run outside and are not timed, ours are inside. Each program has a process of its own,
as in an app: onnxruntime's threads go on spinning after a run, and in one process they would slow the next program. In
each round every program runs four steps in a row, as a picture does, and the first is not counted; the peer runs right
before each of them. Ratios are those of the medians of such a pair; the table gives their median and range, and the
ratio of the fastest rounds, which is what a machine gives that nobody else uses. Core ML programs cannot run on Linux:
their size only. `--clock cpu` takes the processor's time in place of the wall's, which with one thread says the same on
a machine that has other work to do.

A picture: the peer takes 250 steps (and beside it 20), ours 20; also with guidance in the middle of the steps only,
where the other steps run the half of the class alone; and the few steps of a distilled student, whose guidance is
inside, beside the peer's four steps of one half.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from compact_programs import (
    ALL_ROWS,
    PEER,
    PRESETS,
    ROWS,
    STEPS,
    STUDENT,
    STUDENT_STEPS,
    UNGUIDED,
    SavedProgram,
    save_programs,
)

from kind_core.samplers import Sampling
from kind_runtimes.engines.runtime import EngineOptions, Program, open_program

PEER_STEPS = 250
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
STEPS_A_ROUND = 4
INTERVAL = (0.2, 0.6)
NUM_GUIDED = sum(Sampling(sampler="ddim", steps=STEPS, guidance_scale=1.5, guidance_interval=INTERVAL).guided)
Call = Callable[[int], list[float]]  # milliseconds of so many steps in a row


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """How steps are timed."""

    threads: int
    clock: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A program of one model: its size, and a call that times steps where it can run here."""

    model: str
    row: str
    size_bytes: int
    call: Call | None


def open_case(saved: SavedProgram, timing: Timing) -> Case:
    call = open_call(saved, timing) if saved.runs_here else None
    return Case(model=saved.model, row=saved.row, size_bytes=saved.size_bytes, call=call)


def open_call(saved: SavedProgram, timing: Timing) -> Call:
    """Open a program in a process of its own, on random latents."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    context.Process(target=serve, args=(saved, timing, there), daemon=True).start()
    here.recv()  # opened

    def call(steps: int) -> list[float]:
        here.send(steps)
        times: list[float] = here.recv()
        return times

    return call


def serve(saved: SavedProgram, timing: Timing, requests: Connection) -> None:
    """The other process: open the program, then time as many steps as asked, until the benchmark ends."""
    program = open_program(saved.runtime, saved.file, saved.spec, EngineOptions(threads=timing.threads))
    generator = np.random.default_rng(0)
    inputs = {
        s.name: generator.standard_normal(s.shape).astype(s.dtype) if len(s.shape) > 1 else np.zeros(s.shape, s.dtype)
        for s in saved.spec.inputs
    }
    requests.send("opened")
    with suppress(EOFError):  # the benchmark is done
        while True:
            requests.send([_time_ms(program, inputs, CLOCKS[timing.clock]) for _ in range(requests.recv())])


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Milliseconds a step, a median for each round: of a program, and of the peer right before it."""

    own: list[float]
    peer: list[float]

    @property
    def step_ms(self) -> float:
        return statistics.median(self.own)

    @property
    def ratios(self) -> list[float]:
        return [peer / own for peer, own in zip(self.peer, self.own, strict=True)]

    @property
    def fastest_ratio(self) -> float:
        return min(self.peer) / min(self.own)


def time_interleaved(cases: list[Case], rounds: int) -> list[Times | None]:
    """The times of each case against the first, None where a program cannot run here."""
    times = [None if case.call is None else Times(own=[], peer=[]) for case in cases]
    peer = cases[0].call
    for _ in range(rounds):
        for case, kept in zip(cases, times, strict=True):
            if kept is None or case.call is None or peer is None:
                continue
            kept.peer.append(statistics.median(peer(STEPS_A_ROUND)[1:]))
            kept.own.append(statistics.median(case.call(STEPS_A_ROUND)[1:]))
    return times


def _time_ms(program: Program, inputs: dict[str, np.ndarray], clock: Callable[[], float]) -> float:
    start = clock()
    program(inputs)
    return (clock() - start) * 1e3


def print_table(runtime: str, cases: list[Case], times: list[Times | None]) -> None:
    """One row a program, ratios to the first."""
    print(f"\n{runtime}")
    heading = "faster (range of rounds), fastest rounds"
    print(f"{'model':16} {'precision':14} {'MB':>7} {'smaller':>8} {'step ms':>9}   {heading}")
    peer = cases[0]
    for case, own in zip(cases, times, strict=True):
        smaller = f"{peer.size_bytes / case.size_bytes:7.2f}x"
        print(f"{case.model:16} {case.row:14} {case.size_bytes / 1e6:7.1f} {smaller} {_describe(own)}")


def _describe(times: Times | None) -> str:
    if times is None:
        return "       --"
    spread = f"{min(times.ratios):.2f} to {max(times.ratios):.2f}"
    return f"{times.step_ms:9.1f}   {statistics.median(times.ratios):.2f}x ({spread}), {times.fastest_ratio:.2f}x"


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture of a model: its steps times their median, and how much faster that is than the peer's."""

    name: str
    seconds: float
    faster_than_peer_at: dict[int, float]  # by the peer's steps, of two halves
    faster_than_halves: float | None = None  # of a student: than as many of the peer's steps of one half


def pictures_of(cases: list[Case], times: list[Times | None]) -> list[Picture]:
    """Every model that ran, in the ways that it can draw."""
    ran = {(c.model, c.row): t for c, t in zip(cases, times, strict=True) if t is not None}
    pictures = []
    for (model, row), own in ran.items():
        name, peer_ms = f"{model} {row}", statistics.median(own.peer)
        if row.endswith(STUDENT):
            picture = _picture(name, STUDENT_STEPS * own.step_ms, peer_ms)
            pictures.append(replace(picture, faster_than_halves=ran[PEER, "fp32" + UNGUIDED].step_ms / own.step_ms))
        elif model != PEER and not row.endswith(UNGUIDED):
            pictures.append(_picture(name, STEPS * own.step_ms, peer_ms))
            alone = ran.get((model, row + UNGUIDED))
            if alone is not None:
                picture_ms = NUM_GUIDED * own.step_ms + (STEPS - NUM_GUIDED) * alone.step_ms
                pictures.append(_picture(f"{name}, guided in {NUM_GUIDED} steps", picture_ms, peer_ms))
    return pictures


def _picture(name: str, picture_ms: float, peer_ms: float) -> Picture:
    ratios = {steps: steps * peer_ms / picture_ms for steps in (PEER_STEPS, STEPS)}
    return Picture(name=name, seconds=picture_ms / 1e3, faster_than_peer_at=ratios)


def print_pictures(pictures: list[Picture]) -> None:
    """A line a picture."""
    print("one picture")
    for picture in pictures:
        ratios = [f"{ratio:.1f}x the peer's {steps} steps" for steps, ratio in picture.faster_than_peer_at.items()]
        if picture.faster_than_halves is not None:
            ratios.append(f"{picture.faster_than_halves:.1f}x the peer's {STUDENT_STEPS} of one half")
        print(f"  {picture.name}: {picture.seconds:.3f} s, as fast as {', '.join(ratios)}")


def describe(cases: list[Case], times: list[Times | None], pictures: list[Picture]) -> dict[str, object]:
    """What --json prints of a runtime."""
    rows = [
        {"model": case.model, "precision": case.row, "bytes": case.size_bytes}
        | ({} if own is None else {"step_ms": own.own, "peer_ms": own.peer, "ratio": statistics.median(own.ratios)})
        for case, own in zip(cases, times, strict=True)
    ]
    return {"steps": rows, "pictures": [asdict(picture) for picture in pictures]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtimes", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--models", nargs="+", default=PRESETS, choices=PRESETS, help="beside the peer")
    parser.add_argument("--precisions", nargs="+", default=ALL_ROWS, choices=ALL_ROWS, help="where a runtime has them")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for programs; those there are timed")
    parser.add_argument("--json", action="store_true", help="print every round's figures as JSON instead")
    arguments = parser.parse_args()
    results = {}
    for runtime in arguments.runtimes:
        with ExitStack() as stack:
            folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            programs = save_programs(runtime, folder / runtime, arguments.models, arguments.precisions)
            timing = Timing(threads=arguments.threads, clock=arguments.clock)
            cases = [open_case(saved, timing) for saved in programs]
            times = time_interleaved(cases, arguments.rounds)
        pictures = pictures_of(cases, times) if times[0] else []
        results[runtime] = describe(cases, times, pictures)
        if not arguments.json:
            print_table(runtime, cases, times)
            print_pictures(pictures)
    if arguments.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
