"""Size and speed of compact KIND programs against diffusers' dense DiT-B/2, side by side in one run.

    python tests/benchmarks/compact.py [--runtimes onnx executorch coreml] [--rounds 6]

Random weights (also in the layers that start at zero), one class, 20 steps, 2 threads. The peer is diffusers'
`DiTTransformer2DModel` of DiT-B/2, exported in each tool's ordinary way and called with a batch of two, as its pipeline
does; its scheduler and guidance run outside and are not timed, ours are inside. In each round every program runs four
steps in a row, as a picture does, and the first is not counted; rounds are interleaved. Ratios are those of the medians
of a round; the table gives their median and range. Core ML programs cannot run on Linux: their size only.

A picture: the peer takes 250 steps (and beside it 20), ours 20; also with guidance in the middle of the steps only,
where the other steps run the half of the class alone.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from kind_core.config import preset
from kind_core.dit import KindDiT
from kind_core.sampling import guided_steps
from kind_core.schedule import read_sampler_table
from kind_export.compact import CompactModel
from kind_export.programs import make_step
from kind_export.rewrites import RewriteOptions, rewrite
from kind_export.rewrites.factor_modulations import table_error_db
from kind_export.targets import Lowering, TargetOptions, load_target
from kind_runtimes.manifest import ProgramSpec, TensorSpec

STEPS = 20
PEER_STEPS = 250
THREADS = 2
STEPS_A_ROUND = 4
INTERVAL = (0.2, 0.6)
UNGUIDED = " alone"
PEER = "dense DiT-B/2"
PRESETS = ("kind-b/2", "kind-mobile")
PRECISIONS = {"onnx": ("fp32", "fp16", "int8"), "executorch": ("fp32", "int8"), "coreml": ("fp16", "int8")}
SIZE_ONLY = (("onnx", "fp16"), ("coreml", "fp16"), ("coreml", "int8"))
Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A program of one model: its size, and a call that runs one step where it can run here."""

    model: str
    precision: str
    size_bytes: int
    call: Call | None


class Peer(torch.nn.Module):
    """diffusers' dense model as its pipeline calls it: (2, 4, 32, 32), both guidance halves."""

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


def peer_lowering() -> Lowering:
    """The peer with its inputs by name; the step and the label are numbers of 32 bits where a tool wants that."""
    integer = torch.int64
    inputs = (
        TensorSpec(name="latents", shape=(2, 4, 32, 32), dtype="float32"),
        TensorSpec(name="timesteps", shape=(2,), dtype="int64"),
        TensorSpec(name="labels", shape=(2,), dtype="int64"),
    )
    outputs = (TensorSpec(name="sample", shape=(2, 8, 32, 32), dtype="float32"),)
    example = (torch.zeros(2, 4, 32, 32), torch.zeros(2, dtype=integer), torch.zeros(2, dtype=integer))
    return Lowering(name="peer", module=Peer().eval(), example=example, inputs=inputs, outputs=outputs)


def kind_model(name: str, precision: str) -> CompactModel:
    """A preset with random weights, for one class."""
    torch.manual_seed(0)
    dit, diffusion = preset(name)
    model = KindDiT(replace(dit, num_classes=1)).eval()
    for parameter in model.parameters():
        if not parameter.any():  # adaLN-Zero: the modulations would all be equal
            torch.nn.init.normal_(parameter, std=0.02)
    options = RewriteOptions(table_error_db=table_error_db(precision))
    return rewrite(model, read_sampler_table(diffusion, "ddim", STEPS), options)


def build(runtime: str, folder: Path) -> Iterator[Case]:
    """Every program of a runtime, the peer in fp32 (or what its tool does by default) first."""
    target = load_target(runtime)
    yield from peer_cases(runtime, folder)
    for name in PRESETS:
        for precision in PRECISIONS[runtime]:
            compact = kind_model(name, precision)
            options = TargetOptions(precision=precision)  # type: ignore[arg-type]
            lowering = make_step(compact, target, options)
            file = folder / f"{name.replace('/', '-')}-{precision}{target.SUFFIX}"
            target.lower(lowering, file, options)
            call = None if (runtime, precision) in SIZE_ONLY else open_call(runtime, file, lowering)
            yield Case(model=name, precision=precision, size_bytes=size_of(file), call=call)
            if (runtime, precision) == ("onnx", "int8"):
                yield unguided_case(name, compact, folder)


def unguided_case(name: str, compact: CompactModel, folder: Path) -> Case:
    """The half of the class alone, as the steps outside a guidance interval run it."""
    target, options = load_target("onnx"), TargetOptions(precision="int8")
    lowering = make_step(compact, target, options, is_guided=False)
    file = folder / f"{name.replace('/', '-')}-unguided.onnx"
    target.lower(lowering, file, options)
    call = open_call("onnx", file, lowering)
    return Case(model=name, precision="int8" + UNGUIDED, size_bytes=size_of(file), call=call)


def peer_cases(runtime: str, folder: Path) -> Iterator[Case]:
    """The peer in each tool's ordinary way."""
    lowering, file = peer_lowering(), folder / f"peer{load_target(runtime).SUFFIX}"
    if runtime == "coreml":
        for precision in ("fp32", "fp16"):
            export_peer_coreml(lowering, file, precision)
            yield Case(model=PEER, precision=precision, size_bytes=size_of(file), call=None)
        return
    if runtime == "executorch":
        export_peer_executorch(lowering, file)
        yield Case(model=PEER, precision="fp32", size_bytes=size_of(file), call=open_call(runtime, file, lowering))
        return
    load_target("onnx").lower(lowering, file, TargetOptions(precision="fp32"))
    yield Case(model=PEER, precision="fp32", size_bytes=size_of(file), call=open_call(runtime, file, lowering))
    small = folder / "peer-int8.onnx"
    quantise_peer_onnx(file, small)
    yield Case(model=PEER, precision="int8", size_bytes=size_of(small), call=open_call(runtime, small, lowering))


def quantise_peer_onnx(file: Path, output: Path) -> None:
    """onnxruntime's dynamic int8 with its defaults."""
    import logging

    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)
    quantize_dynamic(file, output, weight_type=QuantType.QInt8)
    logging.disable(logging.NOTSET)


def export_peer_executorch(lowering: Lowering, file: Path) -> None:
    """XNNPACK with its defaults."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    exported = torch.export.export(lowering.module, lowering.example, strict=False)
    edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    file.write_bytes(edge.to_executorch().buffer)


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
    """One run of a program on random latents."""
    generator = np.random.default_rng(0)
    inputs = {
        s.name: generator.standard_normal(s.shape).astype(s.dtype) if len(s.shape) > 1 else np.zeros(s.shape, s.dtype)
        for s in lowering.inputs
    }
    if runtime == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, inputs)
    from kind_runtimes.executorch_program import ExecutorchProgram

    spec = ProgramSpec(name=lowering.name, file=file.name, inputs=lowering.inputs, outputs=lowering.outputs)
    program = ExecutorchProgram(file, spec)
    return lambda: program(inputs)


def size_of(path: Path) -> int:
    """Bytes of a file or of all files in a folder."""
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def time_interleaved(cases: list[Case], rounds: int) -> list[list[float]]:
    """Milliseconds a step of each case, the median of each round; the first round is not counted."""
    medians: list[list[float]] = [[] for _ in cases]
    for round_number in range(rounds + 1):
        for case, kept in zip(cases, medians, strict=True):
            if case.call is None:
                continue
            times = [_time_ms(case.call) for _ in range(STEPS_A_ROUND)][1:]
            if round_number:
                kept.append(statistics.median(times))
    return medians


def _time_ms(call: Call) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def print_table(runtime: str, cases: list[Case], times: list[list[float]]) -> None:
    """One row a program, ratios to the first."""
    print(f"\n{runtime}")
    print(f"{'model':16} {'precision':14} {'MB':>7} {'smaller':>8} {'step ms':>9}   faster (range of rounds)")
    peer = cases[0]
    for case, own in zip(cases, times, strict=True):
        smaller = f"{peer.size_bytes / case.size_bytes:7.2f}x"
        print(f"{case.model:16} {case.precision:14} {case.size_bytes / 1e6:7.1f} {smaller} {_describe(times[0], own)}")
    if times[0]:
        print_pictures(cases, times)


def _describe(peer: list[float], own: list[float]) -> str:
    if not own:
        return "       --"
    ratios = [p / o for p, o in zip(peer, own, strict=True)]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return f"{statistics.median(own):9.1f}   {statistics.median(ratios):.2f}x ({spread})"


def print_pictures(cases: list[Case], times: list[list[float]]) -> None:
    """Seconds of a picture: steps times their median."""
    step_ms = statistics.median(times[0])
    print(f"one picture: {PEER} {PEER_STEPS * step_ms / 1e3:.1f} s at {PEER_STEPS} steps, "
          f"{STEPS * step_ms / 1e3:.2f} s at {STEPS}")  # fmt: skip
    unguided = {(c.model, c.precision): statistics.median(t) for c, t in zip(cases, times, strict=True) if t}
    for case, own in zip(cases, times, strict=True):
        if not own or case.model == PEER or case.precision.endswith(UNGUIDED):
            continue
        guided_ms = statistics.median(own)
        alone_ms = unguided.get((case.model, case.precision + UNGUIDED))
        _print_picture(f"{case.model} {case.precision}", STEPS * guided_ms, step_ms)
        if alone_ms is not None:
            num_guided = sum(guided_steps(STEPS, INTERVAL))
            image_ms = num_guided * guided_ms + (STEPS - num_guided) * alone_ms
            _print_picture(f"{case.model} {case.precision}, guided in {num_guided} steps", image_ms, step_ms)


def _print_picture(name: str, image_ms: float, peer_step_ms: float) -> None:
    many, few = (steps * peer_step_ms / image_ms for steps in (PEER_STEPS, STEPS))
    print(f"  {name}: {image_ms / 1e3:.2f} s, {many:.1f}x as fast ({few:.1f}x at equal steps)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtimes", nargs="+", default=["onnx", "executorch", "coreml"], choices=list(PRECISIONS))
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    for runtime in arguments.runtimes:
        with tempfile.TemporaryDirectory() as folder:
            cases = list(build(runtime, Path(folder)))
            print_table(runtime, cases, time_interleaved(cases, arguments.rounds))


if __name__ == "__main__":
    main()
