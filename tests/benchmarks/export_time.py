"""Seconds and peak memory of one whole export: every target, gates, previews and report, as the command line runs it.

    python tests/benchmarks/export_time.py [--preset kind-b/2] [--targets all] [--precision int8]

Random weights (also in the layers that start at zero), one class, 20 steps. The peak is the resident memory of the
largest process.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from kind_core.checkpoint import save_checkpoint
from kind_core.classes import ClassInfo
from kind_core.config import ModelConfig, preset
from kind_core.dit import KindDiT


@torch.no_grad()
def write_checkpoint(name: str, path: Path) -> None:
    """A preset of one class with random weights."""
    torch.manual_seed(0)
    dit, diffusion = preset(name)
    dit = replace(dit, num_classes=1)
    model = KindDiT(dit).eval()
    for parameter in model.parameters():
        if not parameter.any():  # adaLN-Zero: the modulations would all be equal
            parameter.normal_(std=0.02)
    # label embeddings as far apart as trained ones, or no check could tell the class from the null label
    model.tailors.label_embeddings().normal_()
    classes = (ClassInfo(id="n02510455", names=("giant panda",)),)
    save_checkpoint(path, ModelConfig(dit=dit, diffusion=replace(diffusion, steps=20), classes=classes), model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="kind-b/2")
    parser.add_argument("--targets", default="all")
    parser.add_argument("--precision")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint"
        write_checkpoint(arguments.preset, checkpoint)
        command = [sys.executable, "-c", "from kind_export.cli import main; main()", "--checkpoint", str(checkpoint)]
        command += ["--classes", "panda", "--target", arguments.targets, "-o", str(Path(folder) / "out.kind")]
        command += ["--precision", arguments.precision] if arguments.precision else []
        start = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - start
    peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    precision = arguments.precision or "default precisions"
    print(f"{arguments.preset} to {arguments.targets}, {precision}: {seconds:.0f} s, {peak_gb:.2f} GB at the peak")


if __name__ == "__main__":
    main()
