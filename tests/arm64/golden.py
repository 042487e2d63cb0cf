"""Holds the programs of bundles against the golden data that they bring along, on whatever machine runs this.

    python golden.py RUNTIME BUNDLE [BUNDLE ...]

The whole trajectory of every class, each step on its own latents too where there is no history, and the picture; PSNR
in dB against the eager model, by the gates of the precision. A line a bundle; exit code 1 below a gate. Where there is
no PyTorch, ExecuTorch runs without it.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from kind_core.closeness import MAX_DB, psnr_db
from kind_core.precisions import PRECISIONS
from kind_runtimes.bundle import read_manifest
from kind_runtimes.engine_rows import ENGINES
from kind_runtimes.generator import Generator, open_generator


def hold_trajectories(generator: Generator, golden: dict[str, np.ndarray]) -> Iterator[tuple[str, float]]:
    """What was held and its dB, class by class."""
    for index in range(len(generator.manifest.classes)):
        noise, latents = golden[f"{index}.noise"], golden[f"{index}.latents"]
        drawn = list(generator.trajectory(noise, index))
        yield "trajectory", psnr_db(latents[-1], drawn[-1][0])
        if "history" not in generator.input_names:
            scale = generator.manifest.sampling.guidance_scale
            for step in range(len(drawn)):
                inputs = {"latents": latents[step : step + 1], **generator.choose_class(index)}
                yield "step", psnr_db(latents[step + 1], generator.run_step(inputs, step, scale)["next_latents"][0])
        if generator.decode is not None and f"{index}.image" in golden:
            image = generator.decode({"latents": latents[-1:]})["image"]
            yield "picture", psnr_db(golden[f"{index}.image"], image, peak=1)


def check(bundle: Path, runtime: str) -> bool:
    """Print the worst of each kind with its gate; whether all hold."""
    manifest = read_manifest(bundle)
    start = time.perf_counter()
    generator = open_generator(bundle, manifest, runtime, is_expendable=True)
    worst: dict[str, float] = {}
    for what, db in hold_trajectories(generator, load_file(bundle / "golden.safetensors")):
        worst[what] = min(db, worst.get(what, MAX_DB))
    precision = PRECISIONS[manifest.target(runtime).precision]
    gates = {"trajectory": precision.trajectory_db, "step": precision.step_db, "picture": 35.0}
    words = ", ".join(f"{what} {db:.1f} dB (gate {gates[what]:g})" for what, db in worst.items())
    holds = all(db >= gates[what] for what, db in worst.items())
    seconds = time.perf_counter() - start
    print(f"{platform.machine()} {bundle.name} {generator.step.engine} {precision.name}: {words}, {seconds:.0f} s"
          f"{'' if holds else '  BELOW THE GATE'}", flush=True)  # fmt: skip
    return holds


def main() -> None:
    runtime, *bundles = sys.argv[1:]
    if not find_spec("torch"):
        ENGINES["executorch"] = replace(ENGINES["executorch"], module="torchless", package="executorch_numpy_runtime")
    results = [check(Path(bundle), runtime) for bundle in bundles]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
