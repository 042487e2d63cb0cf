"""What few steps cost and save: students beside their teacher, judged alike and timed side by side, engine by engine.

    python tests/benchmarks/few_steps.py --teacher run/best --student everything=few/best --student tailors=few2/best \
      --data train.parquet --val-data held-out.parquet --classifier judge.safetensors [--count 30]
      [--runtimes onnx executorch] [--keep FOLDER]

The teacher draws with the guidance that the first student holds. The same start noise for every model; as many photos
as pictures. "Distance" is over that of the photos of --data to the held-out ones, so 1 is the best that can be had.
"Tailor decides": pictures with the label of one class and the gate of the next, judged as the gate's. Bytes are those
of the step program of one class and of a pack in fp16. A picture is the median of --repeat, all models in turns. With
--count 0 nothing is judged.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
from guidance import choose

from kind_core.checkpoint import read_config
from kind_export.pipeline import export_bundle
from kind_export.request import ExportRequest
from kind_runtimes.bundle import open_bundle
from kind_runtimes.generator import Generator, open_generator
from kind_train.data.photo_set import load_photos
from kind_train.evaluate.frechet import compare_frechet
from kind_train.evaluate.judges import Judge, open_judge
from kind_train.evaluate.neighbours import measure_coverage
from kind_train.evaluate.pictures import CheckpointDrawer, DrawSettings


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model at a number of steps: what its programs and packs weigh, and themselves, opened, by runtime."""

    name: str
    checkpoint: Path
    steps: int
    program_bytes: dict[str, int]
    pack_bytes: int
    generators: dict[str, Generator]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--student", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--val-data", type=Path, required=True)
    parser.add_argument("--classifier", type=Path, help="the judge [EfficientNet-Lite2]")
    parser.add_argument("--count", type=int, default=30, help="pictures a class")
    parser.add_argument("--repeat", type=int, default=30, help="pictures that are timed")
    parser.add_argument("--runtimes", nargs="+", default=["onnx"], choices=("onnx", "executorch"))
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for bundles; those there are not exported again")
    arguments = parser.parse_args()
    students = [text.partition("=")[::2] for text in arguments.student]
    guidance = None
    with ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        models = [("teacher", arguments.teacher, (read_config(arguments.teacher).diffusion.steps,))]
        for name, path in students:
            distillation = read_config(Path(path)).diffusion.distillation
            assert distillation is not None, f"{path} is no student"
            guidance = distillation.guidance_scale if guidance is None else guidance
            models.append((name, Path(path), distillation.steps))
        rows = [export(*one[:2], steps, folder, arguments.runtimes) for one in models for steps in one[2]]
        milliseconds = {runtime: time_pictures(rows, runtime, arguments.repeat) for runtime in arguments.runtimes}
    print_times(rows, milliseconds)
    if arguments.count:
        print_quality(rows, guidance, arguments)


def export(name: str, checkpoint: Path, steps: int, folder: Path, runtimes: list[str]) -> Row:
    """Export the first class for every runtime, and as a pack."""
    first = read_config(checkpoint).classes[0].id
    wanted = ExportRequest(
        classes=(first,), targets=tuple(runtimes), checkpoint=checkpoint, steps=steps,
        output=folder / f"{name}-{steps}.kind",
    )  # fmt: skip
    packs = replace(wanted, targets=("onnx",), packs=True, output=folder / f"{name}-{steps}-base.kind")
    bundle, base = (one.output for one in (wanted, packs) if one.output is not None)
    for request in (wanted, packs):
        if request.output is not None and not request.output.exists():
            export_bundle(request)
    manifest = open_bundle(bundle).manifest
    return Row(
        name=name, checkpoint=checkpoint, steps=steps,
        program_bytes={one: (bundle / manifest.targets[one].programs["step"].file).stat().st_size for one in runtimes},
        pack_bytes=open_bundle(base).manifest.packs[0].size_bytes,
        generators={runtime: open_generator(bundle, manifest, runtime) for runtime in runtimes},
    )  # fmt: skip


def time_pictures(rows: list[Row], runtime: str, repeat: int) -> list[float]:
    """Milliseconds a picture, median, the models in turns so that they meet the same machine."""
    times: list[list[float]] = [[] for _ in rows]
    for seed in range(repeat + 3):
        for row, taken in zip(rows, times, strict=True):
            start = time.perf_counter()
            row.generators[runtime].picture(0, seed)
            taken.append(1000 * (time.perf_counter() - start))
    return [median(taken[3:]) for taken in times]


def print_times(rows: list[Row], milliseconds: dict[str, list[float]]) -> None:
    for runtime, taken in milliseconds.items():
        print(f"{runtime:12} steps  program kB  pack kB  ms a picture  faster")
        for row, own in zip(rows, taken, strict=True):
            print(
                f"{row.name:12} {row.steps:5}  {row.program_bytes[runtime] / 1e3:10.0f}  {row.pack_bytes / 1e3:7.1f}  "
                f"{own:12.2f}  {taken[0] / own:5.1f}x"
            )


def print_quality(rows: list[Row], guidance: float | None, arguments: argparse.Namespace) -> None:
    judge, first = open_judge(arguments.classifier, "cpu"), CheckpointDrawer(arguments.teacher, (), DrawSettings())
    photos = [load_photos(file, first.size, classes=first.classes) for file in (arguments.data, arguments.val_data)]
    seen, held_out = (judge.classify(choose(one, arguments.count)).features for one in photos)
    floor = compare_frechet(seen, held_out).distance
    print(f"{judge.name}, n = {len(held_out)}")
    print("model        steps  distance  precision  recall  as asked  tailor decides")
    for row in rows:
        settings = DrawSettings(steps=row.steps, guidance=guidance if row is rows[0] else None)
        drawer = CheckpointDrawer(row.checkpoint, (), settings)
        features, asked, decides = judge_pictures(drawer, judge, arguments.count)
        distance, coverage = compare_frechet(features, held_out).distance / floor, measure_coverage(features, held_out)
        print(
            f"{row.name:12} {row.steps:5}  {distance:8.2f}  {coverage.precision:9.2f}  {coverage.recall:6.2f}  "
            f"{asked:8.0%}  {decides:14.0%}",
            flush=True,
        )


def judge_pictures(drawer: CheckpointDrawer, judge: Judge, count: int) -> tuple[np.ndarray, float, float]:
    """Features of `count` pictures a class, the share called as asked, and the share called as the gate's class."""
    features, asked, decides = [], [], []
    for label, info in enumerate(drawer.classes):
        seen = judge.classify(drawer.draw(label, label, count))
        features.append(seen.features)
        asked.append((seen.logits.argmax(1) == judge.index(info)).mean())
        gate = (label + 1) % len(drawer.classes)
        mixed = judge.classify(drawer.draw(label, gate, count)).logits.argmax(1)
        decides.append((mixed == judge.index(drawer.classes[gate])).mean())
    return np.concatenate(features), float(np.mean(asked)), float(np.mean(decides))


if __name__ == "__main__":
    main()
