"""Guidance and interval chosen for distance and recall: a table of both for every pair, on one checkpoint.

    python tests/benchmarks/guidance.py --checkpoint run/best --val-data held-out.parquet --data train.parquet \
      --classifier judge.safetensors [--guidance 1,1.5,2] [--intervals 0,1 0.2,0.8] [--count 30]

The same start noise in every setting, the judge of `kind-train evaluate`, as many photos as pictures. "Distance" is
over that of the photos of --data to the held-out ones, so 1 is the best that can be had.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from kind_core.console.commands import parse_interval
from kind_samples import SAMPLES, sample_checkpoint
from kind_train.data.photo_set import PhotoSet, load_photos
from kind_train.evaluate.frechet import compare_frechet
from kind_train.evaluate.judges import Judge, open_judge
from kind_train.evaluate.neighbours import measure_coverage
from kind_train.evaluate.pictures import CheckpointDrawer, DrawSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="folder [the shipped --sample]")
    # its student has guidance built in
    parser.add_argument("--sample", choices=SAMPLES, default="photos-teacher")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--val-data", type=Path, required=True)
    parser.add_argument("--classifier", type=Path, help="the judge [EfficientNet-Lite2]")
    parser.add_argument("--guidance", default="1,1.25,1.5,2,3")
    parser.add_argument("--intervals", nargs="+", default=["0,1", "0.2,0.8"])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--count", type=int, default=30, help="pictures a class")
    arguments = parser.parse_args()
    path, judge = arguments.checkpoint or sample_checkpoint(arguments.sample), open_judge(arguments.classifier, "cpu")
    first = CheckpointDrawer(path, (), DrawSettings())
    photos = [load_photos(file, first.size, classes=first.classes) for file in (arguments.data, arguments.val_data)]
    seen, held_out = (judge.classify(choose(one, arguments.count)).features for one in photos)
    floor = compare_frechet(seen, held_out).distance
    real = measure_coverage(seen, held_out)
    print(f"{judge.name}, n = {real.n}; training photos: precision {real.precision:.2f}, recall {real.recall:.2f}")
    print("guidance  interval   distance  precision  recall  called as asked")
    for text in arguments.intervals:
        for guidance in map(float, arguments.guidance.split(",")):
            settings = DrawSettings(steps=arguments.steps, guidance=guidance, guidance_interval=parse_interval(text))
            features, called = draw(CheckpointDrawer(path, (), settings), judge, arguments.count)
            distance = compare_frechet(features, held_out).distance / floor
            ours = measure_coverage(features, held_out)
            figures = f"{distance:8.2f}  {ours.precision:9.2f}  {ours.recall:6.2f}  {called:.0%}"
            print(f"{guidance:8g}  {text:9}  {figures}", flush=True)


def choose(photos: PhotoSet, count: int) -> np.ndarray:
    """The first `count` photos of each class, uint8 (n, size, size, 3)."""
    labels = photos.labels.numpy()
    chosen = np.concatenate([np.flatnonzero(labels == label)[:count] for label in range(len(photos.classes))])
    return photos.images[chosen].permute(0, 2, 3, 1).contiguous().numpy()


def draw(drawer: CheckpointDrawer, judge: Judge, count: int) -> tuple[np.ndarray, float]:
    """Features of `count` pictures a class, and the share that the judge calls as asked, of the classes it knows."""
    seen = [judge.classify(drawer.draw(index, index, count)) for index in range(len(drawer.classes))]
    outputs = [judge.index(info) for info in drawer.classes]
    hits = [one.logits.argmax(1) == output for one, output in zip(seen, outputs, strict=True) if output is not None]
    return np.concatenate([one.features for one in seen]), float(np.mean(np.concatenate(hits)))


if __name__ == "__main__":
    main()
