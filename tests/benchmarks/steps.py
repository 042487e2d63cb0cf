"""What fewer steps and a guidance interval cost: Frechet distance to held-out photos beside that of 250 steps.

    python tests/benchmarks/steps.py --val-data photos64-val.parquet [--classes panda,goldfish,seashore] [--count 20]

The shipped sample, the same start noise in every setting, distances on EfficientNet-Lite0's features with bootstrap
intervals; by their interval at the same n settings can be compared with each other, not with other runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from kind_core.checkpoint import load_checkpoint, read_config
from kind_core.classes import resolve_classes
from kind_core.schedule import choose_sampling
from kind_samples import sample_checkpoint
from kind_train.data.photo_set import load_photos
from kind_train.evaluate.features import EfficientNetLite0
from kind_train.evaluate.frechet import compare_frechet
from kind_train.evaluate.pictures import generate_pictures

SETTINGS = ((250, (0.0, 1.0)), (20, (0.0, 1.0)), (20, (0.2, 0.8)), (20, (0.2, 0.6)), (10, (0.0, 1.0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--val-data", type=Path, required=True)
    parser.add_argument("--classes", default="panda,goldfish,seashore")
    parser.add_argument("--count", type=int, default=20)
    arguments = parser.parse_args()
    config = read_config(sample_checkpoint("photos-teacher"))
    found = [c.index for c in resolve_classes(arguments.classes.split(","), config.classes)]
    checkpoint = load_checkpoint(sample_checkpoint("photos-teacher"), found)
    evaluator = EfficientNetLite0()
    ids = tuple(info.id for info in checkpoint.config.classes)
    photos = load_photos(arguments.val_data, config.dit.sample_size, classes=ids)
    order = np.concatenate([np.flatnonzero(photos.labels.numpy() == label)[:100] for label in range(len(ids))])
    held_out = evaluator.classify(photos.images[order].permute(0, 2, 3, 1).contiguous().numpy()).features
    for steps, interval in SETTINGS:
        sampling = choose_sampling(checkpoint.config.diffusion, steps=steps, guidance_interval=interval)
        pictures = np.concatenate(
            [generate_pictures(checkpoint, i, i, arguments.count, seed=0, sampling=sampling) for i in range(len(ids))]
        )
        result = compare_frechet(evaluator.classify(pictures).features, held_out)
        guided = "" if interval == (0.0, 1.0) else f", guidance in {interval[0]:g} to {interval[1]:g}"
        print(
            f"{steps:4} steps{guided}: {result.distance:.1f} ({result.low:.1f} to {result.high:.1f}), n = {result.n}",
            flush=True,
        )


if __name__ == "__main__":
    main()
