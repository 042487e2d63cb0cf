"""Size and speed of compact KIND programs against diffusers' dense DiT-B/2, side by side in one run.

    python tests/benchmarks/compact.py [--runtimes onnx executorch coreml] [--rounds 6]

Random weights (also in the layers that start at zero), one class, 20 steps, 2 threads. The peer is diffusers'
`DiTTransformer2DModel` of DiT-B/2, exported in each tool's ordinary way and called with a batch of two, as its pipeline
does; its scheduler and guidance run outside and are not timed, ours are inside. Each program has a process of its own,
as in an app: onnxruntime's threads go on spinning after a run, and in one process they would slow the next program. In
each round every program runs four steps in a row, as a picture does, and the first is not counted; the peer runs right
before each of them. Ratios are those of the medians of such a pair; the table gives their median and range, and the
ratio of the fastest rounds, which is what a machine gives that nobody else uses. Core ML programs cannot run on Linux:
their size only.

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
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from kind_core.config import preset
from kind_core.dit import KindDiT
from kind_core.precisions import PrecisionName
from kind_core.samplers import FIRST_ORDER, Distillation, Sampling
from kind_core.schedule import read_sampler_table
from kind_export.compact.model import CompactModel
from kind_export.rewrites import RewriteOptions, rewrite
from kind_export.rewrites.factor_modulations import table_error_db
from kind_export.targets.programs import make_step
from kind_export.targets.target import Lowering, TargetOptions, load_target
from kind_runtimes.engines.runtime import EngineOptions, Program, open_program
from kind_runtimes.manifest import ProgramSpec, TensorSpec

STEPS = 20
PEER_STEPS = 250
THREADS = 2
STEPS_A_ROUND = 4
INTERVAL = (0.2, 0.6)
NUM_GUIDED = sum(Sampling(sampler="ddim", steps=STEPS, guidance_scale=1.5, guidance_interval=INTERVAL).guided)
UNGUIDED, STUDENT = " alone", " student"
STUDENT_STEPS = 4
PEER = "dense DiT-B/2"
PRESETS = ("kind-b/2", "kind-mobile")
PRECISIONS: dict[str, tuple[PrecisionName, ...]] = {
    "onnx": ("fp32", "fp16", "int8"),
    "executorch": ("fp32", "int8"),
    "coreml": ("fp16", "int8"),
}
SIZE_ONLY = (("onnx", "fp16"), ("coreml", "fp16"), ("coreml", "int8"))
Call = Callable[[int], list[float]]  # milliseconds of so many steps in a row


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A program of one model: its size, and a call that times steps where it can run here."""

    model: str
    precision: str
    size_bytes: int
    call: Call | None


class Peer(torch.nn.Module):
    """diffusers' dense model as its pipeline calls it: (2, 4, 32, 32), both guidance halves; or one."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers import DiTTransformer2DModel

        self.model = DiTTransformer2DModel(
            num_attention_heads=12, attention_head_dim=64, in_channels=4, out_channels=8, num_layers=12,
            sample_size=32, patch_size=2, num_embeds_ada_norm=150,
        ).eval()  # fmt: skip

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.model(latents, timestep=timesteps, class_labels=labels, return_dict=False)[0]
        return output


def peer_lowering(halves: int = 2) -> Lowering:
    """The peer with its inputs by name, on both guidance halves or on the class's alone."""
    integer = torch.int64
    inputs = (
        TensorSpec(name="latents", shape=(halves, 4, 32, 32), dtype="float32"),
        TensorSpec(name="timesteps", shape=(halves,), dtype="int64"),
        TensorSpec(name="labels", shape=(halves,), dtype="int64"),
    )
    outputs = (TensorSpec(name="sample", shape=(halves, 8, 32, 32), dtype="float32"),)
    times, labels = (torch.zeros(halves, dtype=integer) for _ in range(2))
    example = (torch.zeros(halves, 4, 32, 32), times, labels)
    return Lowering(name="peer", module=Peer().eval(), example=example, inputs=inputs, outputs=outputs)


def kind_model(name: str, precision: str, *, is_student: bool = False) -> CompactModel:
    """A preset with random weights, for one class; or its student of few steps."""
    torch.manual_seed(0)
    dit, diffusion = preset(name)
    if is_student:
        distillation = Distillation(steps=(STUDENT_STEPS,), guidance_scale=1.5)
        diffusion = replace(
            diffusion, noise_schedule="flow", prediction_type="sample", sampler=FIRST_ORDER, steps=STUDENT_STEPS,
            guidance_scale=1.0, distillation=distillation,
        )  # fmt: skip
        dit = replace(dit, end_blocks=dit.depth // 3)
    model = KindDiT(replace(dit, num_classes=1)).eval()
    for parameter in model.parameters():
        if not parameter.any():  # adaLN-Zero: the modulations would all be equal
            torch.nn.init.normal_(parameter, std=0.02)
    options = RewriteOptions(table_error_db=table_error_db(precision))
    sampler, steps = (FIRST_ORDER, STUDENT_STEPS) if is_student else ("ddim", STEPS)
    return rewrite(model, read_sampler_table(diffusion, sampler, steps), options)


def build(runtime: str, folder: Path) -> Iterator[Case]:
    """Every program of a runtime, the peer in fp32 (or what its tool does by default) first."""
    yield from peer_cases(runtime, folder)
    for name in PRESETS:
        for precision in PRECISIONS[runtime]:
            compact = kind_model(name, precision)
            yield kind_case(runtime, name, precision, compact, folder)
            if (runtime, precision) == ("onnx", "int8"):
                yield kind_case(runtime, name, precision, compact, folder, suffix=UNGUIDED)
            if (runtime, precision) not in SIZE_ONLY:
                student = kind_model(name, precision, is_student=True)
                yield kind_case(runtime, name, precision, student, folder, suffix=STUDENT)


def kind_case(
    runtime: str, name: str, precision: PrecisionName, compact: CompactModel, folder: Path, suffix: str = ""
) -> Case:
    """The step of a model; with the suffix of UNGUIDED the half of the class alone, as outside a guidance interval."""
    target, options = load_target(runtime), TargetOptions(precision=precision)
    lowering = make_step(compact, target, options, is_guided=suffix != UNGUIDED)
    file = folder / f"{name.replace('/', '-')}-{precision}{suffix.strip()}{target.SUFFIX}"
    target.lower(lowering, file, options)
    call = None if (runtime, precision) in SIZE_ONLY else open_call(runtime, file, lowering)
    return Case(model=name, precision=precision + suffix, size_bytes=size_of(file), call=call)


def peer_cases(runtime: str, folder: Path) -> Iterator[Case]:
    """The peer in each tool's ordinary way, where it can run also on one half."""
    lowering, half, file = peer_lowering(), peer_lowering(1), folder / f"peer{load_target(runtime).SUFFIX}"
    if runtime == "coreml":
        for precision in ("fp32", "fp16"):
            export_peer_coreml(lowering, file, precision)
            yield Case(model=PEER, precision=precision, size_bytes=size_of(file), call=None)
        return
    half_file = file.with_stem("peer-half")
    small = file.with_stem("peer-int8")
    if runtime == "executorch":
        export_peer_executorch(lowering, file)
        export_peer_executorch(half, half_file)
        export_peer_executorch(lowering, small, is_int8=True)
    else:
        load_target("onnx").lower(lowering, file, TargetOptions(precision="fp32"))
        load_target("onnx").lower(half, half_file, TargetOptions(precision="fp32"))
        quantise_peer_onnx(file, small)
    yield peer_case(runtime, "fp32", file, lowering)
    yield peer_case(runtime, "fp32" + UNGUIDED, half_file, half)
    yield peer_case(runtime, "int8", small, lowering)


def peer_case(runtime: str, precision: str, file: Path, lowering: Lowering) -> Case:
    return Case(model=PEER, precision=precision, size_bytes=size_of(file), call=open_call(runtime, file, lowering))


def quantise_peer_onnx(file: Path, output: Path) -> None:
    """onnxruntime's dynamic int8 with its defaults."""
    import logging

    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)
    quantize_dynamic(file, output, weight_type=QuantType.QInt8)
    logging.disable(logging.NOTSET)


def export_peer_executorch(lowering: Lowering, file: Path, *, is_int8: bool = False) -> None:
    """XNNPACK with its defaults; in int8 its own quantiser's, dynamic and by channel, as its guide has them."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    exported = torch.export.export(lowering.module, lowering.example, strict=False)
    if is_int8:
        exported = torch.export.export(quantise_peer_executorch(exported.module(), lowering), lowering.example)
    edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    file.write_bytes(edge.to_executorch().buffer)


def quantise_peer_executorch(module: torch.nn.Module, lowering: Lowering) -> torch.nn.Module:
    """XNNPACK's quantiser over the whole model."""
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    config = xnnpack.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    quantizer = xnnpack.XNNPACKQuantizer().set_global(config)
    prepared = prepare_pt2e(module, quantizer)
    prepared(*lowering.example)
    converted: torch.nn.Module = convert_pt2e(prepared)
    return converted


def export_peer_coreml(lowering: Lowering, file: Path, precision: str) -> None:
    """coremltools' ML program; its default is fp16."""
    from kind_runtimes.quiet import import_coremltools

    ct = import_coremltools()
    exported = torch.export.export(lowering.module, lowering.example, strict=False).run_decompositions({})
    ct.convert(
        exported,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT32 if precision == "fp32" else ct.precision.FLOAT16,
        skip_model_load=True,
    ).save(str(file))


def open_call(runtime: str, file: Path, lowering: Lowering) -> Call:
    """Open a program in a process of its own, on random latents."""
    spec = ProgramSpec(name=lowering.name, file=file.name, inputs=lowering.inputs, outputs=lowering.outputs)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    context.Process(target=serve, args=(runtime, file, spec, there), daemon=True).start()
    here.recv()  # opened

    def call(steps: int) -> list[float]:
        here.send(steps)
        times: list[float] = here.recv()
        return times

    return call


def serve(runtime: str, file: Path, spec: ProgramSpec, requests: Connection) -> None:
    """The other process: open the program, then time as many steps as asked, until the benchmark ends."""
    program = open_program(runtime, file, spec, EngineOptions(threads=THREADS if runtime == "onnx" else None))
    generator = np.random.default_rng(0)
    inputs = {
        s.name: generator.standard_normal(s.shape).astype(s.dtype) if len(s.shape) > 1 else np.zeros(s.shape, s.dtype)
        for s in spec.inputs
    }
    requests.send("opened")
    with suppress(EOFError):  # the benchmark is done
        while True:
            requests.send([_time_ms(program, inputs) for _ in range(requests.recv())])


def size_of(path: Path) -> int:
    """Bytes of a file or of all files in a folder."""
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


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


def _time_ms(program: Program, inputs: dict[str, np.ndarray]) -> float:
    start = time.perf_counter()
    program(inputs)
    return (time.perf_counter() - start) * 1e3


def print_table(runtime: str, cases: list[Case], times: list[Times | None]) -> None:
    """One row a program, ratios to the first."""
    print(f"\n{runtime}")
    heading = "faster (range of rounds), fastest rounds"
    print(f"{'model':16} {'precision':14} {'MB':>7} {'smaller':>8} {'step ms':>9}   {heading}")
    peer = cases[0]
    for case, own in zip(cases, times, strict=True):
        smaller = f"{peer.size_bytes / case.size_bytes:7.2f}x"
        print(f"{case.model:16} {case.precision:14} {case.size_bytes / 1e6:7.1f} {smaller} {_describe(own)}")


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
    ran = {(c.model, c.precision): t for c, t in zip(cases, times, strict=True) if t is not None}
    half_ms = ran[PEER, "fp32" + UNGUIDED].step_ms
    pictures = []
    for (model, precision), own in ran.items():
        name, peer_ms = f"{model} {precision}", statistics.median(own.peer)
        if precision.endswith(STUDENT):
            picture = _picture(name, STUDENT_STEPS * own.step_ms, peer_ms)
            pictures.append(replace(picture, faster_than_halves=half_ms / own.step_ms))
        elif model != PEER and not precision.endswith(UNGUIDED):
            pictures.append(_picture(name, STEPS * own.step_ms, peer_ms))
            alone = ran.get((model, precision + UNGUIDED))
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
        {"model": case.model, "precision": case.precision, "bytes": case.size_bytes}
        | ({} if own is None else {"step_ms": own.own, "peer_ms": own.peer, "ratio": statistics.median(own.ratios)})
        for case, own in zip(cases, times, strict=True)
    ]
    return {"steps": rows, "pictures": [asdict(picture) for picture in pictures]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtimes", nargs="+", default=["onnx", "executorch", "coreml"], choices=list(PRECISIONS))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", action="store_true", help="print every round's figures as JSON instead")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    results = {}
    for runtime in arguments.runtimes:
        with tempfile.TemporaryDirectory() as folder:
            cases = list(build(runtime, Path(folder)))
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
