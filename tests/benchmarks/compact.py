"""Size and step time of compact KIND programs against diffusers' dense DiT-B/2, side by side in one run.

    OMP_NUM_THREADS=2 python tests/benchmarks/compact.py [--repeats 15]

Random weights, fp32, onnxruntime on 2 threads, one class, 20 steps, guidance pair. The peer is diffusers'
`DiTTransformer2DModel` of DiT-B/2 exported by torch.onnx and called with a batch of two, as its pipeline does; its
scheduler and guidance run outside and are not timed. Calls are interleaved: peer, kind-b/2, kind-mobile, peer, ...
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
import onnxruntime
import torch

from kind_core.config import preset
from kind_core.dit import KindDiT
from kind_core.schedule import read_sampler_table
from kind_export.programs import make_step
from kind_export.rewrites import RewriteOptions, rewrite
from kind_export.targets import Lowering, TargetOptions, load_target
from kind_runtimes.manifest import TensorSpec

STEPS = 20
Call = Callable[[], object]


def make_kind(name: str, folder: Path) -> tuple[int, Call]:
    """(bytes, one step) of a preset's one-class program."""
    dit, diffusion = preset(name)
    model = KindDiT(replace(dit, num_classes=1)).eval()
    compact = rewrite(model, read_sampler_table(diffusion, "ddim", STEPS), RewriteOptions())
    target = load_target("onnx")
    options = TargetOptions(precision="fp32")
    return _lower(make_step(compact, target, options), folder / f"{name.replace('/', '-')}.onnx")


def make_peer(folder: Path) -> tuple[int, Call]:
    """(bytes, one pass of both guidance halves) of the dense peer."""
    from diffusers import DiTTransformer2DModel

    model = DiTTransformer2DModel(
        num_attention_heads=12, attention_head_dim=64, in_channels=4, out_channels=8, num_layers=12, sample_size=32,
        patch_size=2, num_embeds_ada_norm=150,
    ).eval()  # fmt: skip
    inputs = (
        TensorSpec(name="hidden_states", shape=(2, 4, 32, 32), dtype="float32"),
        TensorSpec(name="timestep", shape=(2,), dtype="int64"),
        TensorSpec(name="class_labels", shape=(2,), dtype="int64"),
    )
    outputs = (TensorSpec(name="sample", shape=(2, 8, 32, 32), dtype="float32"),)
    example = (torch.zeros(2, 4, 32, 32), torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    return _lower(
        Lowering(name="peer", module=_Peer(model).eval(), example=example, inputs=inputs, outputs=outputs),
        folder / "peer.onnx",
    )


class _Peer(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.model(latents, timestep=timesteps, class_labels=labels, return_dict=False)[0]
        return output


def _lower(lowering: Lowering, file: Path) -> tuple[int, Call]:
    load_target("onnx").lower(lowering, file, TargetOptions(precision="fp32"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(file, options)
    inputs = {s.name: np.zeros(s.shape, s.dtype) for s in lowering.inputs}
    return file.stat().st_size, lambda: session.run(None, inputs)


def time_interleaved(calls: dict[str, Call], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each call, taken in turn; the first two rounds are not counted."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_number in range(repeats + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if round_number >= 2:
                times[name].append((time.perf_counter() - start) * 1e3)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        built = {"dense DiT-B/2 (diffusers)": make_peer(Path(folder))}
        built |= {name: make_kind(name, Path(folder)) for name in ("kind-b/2", "kind-mobile")}
        times = time_interleaved({name: call for name, (_, call) in built.items()}, repeats)
    (peer_bytes, _), peer_times = next(iter(built.values())), next(iter(times.values()))
    print(f"{'model':28} {'MB':>7} {'smaller':>8} {'step ms':>9} {'faster (median of pairs)':>25}")
    for name, (size_bytes, _) in built.items():
        ratios = [peer / own for peer, own in zip(peer_times, times[name], strict=True)]
        print(
            f"{name:28} {size_bytes / 1e6:7.1f} {peer_bytes / size_bytes:7.2f}x {statistics.median(times[name]):9.1f} "
            f"{statistics.median(ratios):13.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
