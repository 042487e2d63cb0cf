"""Adaptation to new classes: KIND's tailors against full fine-tuning and LoRA of a dense twin, at equal steps.

    pip install -e '.[benchmark]'
    python tests/benchmarks/adapt.py --data photos64-train.parquet --novel photos64-novel.parquet --work /tmp/adapt

The base and its dense twin are trained alike first, on the same photos in the same order (kept in --work for another
call). Then each method adapts its base to the novel classes with the same batches: fresh tailors beside the frozen
learngene, started at random or from the nearest class; LoRA on the six matrices of every block, at the rank that
gives it the parameters of all those tailors; and every weight of the twin. Each runs at every learning rate of
--learning-rates; the one with the lowest held-out loss counts, and all are printed. Dense methods keep the label
dropout that guidance needs; in KIND the null label is the learngene, which stays.

Printed per method: trained parameters, held-out loss (same photos, noise and timesteps for all), Frechet distance of
--count pictures a class to as many held-out photos on EfficientNet-Lite0's features with its bootstrap interval, the
floor of real photos, the share classified as asked where the classes are ImageNet's, and the seconds of training.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from kind_core.checkpoint import Checkpoint, load_checkpoint, read_config
from kind_core.config import preset
from kind_core.schedule import choose_sampling
from kind_train.config import TrainConfig
from kind_train.data.imagenet import imagenet_index
from kind_train.data.photo_set import PhotoSet, load_photos
from kind_train.data.training_set import split_photos
from kind_train.evaluate.features import Classification, EfficientNetLite0
from kind_train.evaluate.frechet import compare_frechet, real_floor
from kind_train.evaluate.pictures import generate_pictures
from kind_train.run.trainer import Trainer
from kind_train.start.shape import Shape

METHODS = ("tailors", "tailors from nearest", "LoRA", "full fine-tuning")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one method came to at its best learning rate."""

    method: str
    learning_rate: float
    trained_parameters: int
    held_out_loss: float
    distance: float
    low: float
    high: float
    asked_share: float | None
    seconds: float
    losses: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="what the bases are trained on")
    parser.add_argument("--novel", type=Path, required=True, help="the new classes; a fifth of them is held out")
    parser.add_argument("--work", type=Path, required=True, help="where the runs lie")
    parser.add_argument("--preset", default="sample")
    parser.add_argument("--classes", default="", help="classes of the base (comma) [all]")
    parser.add_argument("--base-images", type=int, default=60_000)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--learning-rates", default="3e-4,1e-3,3e-3")
    parser.add_argument("--count", type=int, default=25)
    parser.add_argument("--device", default="auto")
    parser.add_argument("-o", "--output", type=Path, help="write all figures as JSON")
    arguments = parser.parse_args()
    dit, diffusion = preset(arguments.preset)
    kind = Shape(dit=dit, diffusion=diffusion)
    dense = Shape(dit=replace(dit, learngene_rank=None, tailor_rank=0), diffusion=diffusion)
    photos = load_photos(arguments.data, dit.sample_size, classes=tuple(filter(None, arguments.classes.split(","))))
    common = TrainConfig(
        data=str(arguments.data), output=str(arguments.work), device=arguments.device, images=arguments.base_images,
        learning_rate=6e-4, warmup_images=arguments.base_images // 20, decay_fraction=0.3, ema_decay=0.999,
        save_every=arguments.base_images // 4, sample_every=10**9,
    )  # fmt: skip
    bases = {name: train_base(name, shape, photos, common) for name, shape in (("kind", kind), ("dense", dense))}
    train, held_out = split_photos(load_photos(arguments.novel, dit.sample_size), 0.2, seed=0)
    adapt = replace(
        common, data=str(arguments.novel), images=arguments.images, warmup_images=arguments.images // 20,
        save_every=arguments.images // 4, decay_fraction=0.5,
    )  # fmt: skip
    judge = Judge(train, held_out, arguments.count)
    print(f"{len(train)} photos of {len(train.classes)} new classes, {len(held_out)} held out; floor {judge.floor:.1f}")
    rates = [float(rate) for rate in arguments.learning_rates.split(",")]
    outcomes = [run_method(name, rates, bases, (kind, dense), adapt, train, held_out, judge) for name in METHODS]
    if arguments.output is not None:
        report = {"options": {k: str(v) for k, v in vars(arguments).items()}, "floor": judge.floor}
        arguments.output.write_text(json.dumps(report | {"methods": [asdict(o) for o in outcomes]}, indent=2) + "\n")


def train_base(name: str, shape: Shape, photos: PhotoSet, common: TrainConfig) -> Path:
    """The checkpoint of a base, trained unless a call before did it."""
    folder = Path(common.output) / f"base-{name}"
    if not (folder / "best").exists():
        train, held_out = split_photos(photos, 0.05, seed=0)
        start_s = time.perf_counter()
        loss = Trainer(replace(common, output=str(folder)), train, held_out, shape=shape).run()
        print(f"base {name}: held-out loss {loss:.4f} in {time.perf_counter() - start_s:.0f} s", flush=True)
    return folder / "best"


def run_method(
    method: str,
    rates: Sequence[float],
    bases: dict[str, Path],
    shapes: tuple[Shape, Shape],
    common: TrainConfig,
    train: PhotoSet,
    held_out: PhotoSet,
    judge: Judge,
) -> Outcome:
    losses, seconds, counts = {}, {}, 0
    for rate in rates:
        output = Path(common.output) / f"{method.replace(' ', '-')}-{rate:g}"
        config = replace(common, output=str(output), learning_rate=rate)
        trainer = make_trainer(method, config, bases, shapes, train, held_out)
        counts = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        start_s = time.perf_counter()
        losses[rate] = trainer.run()
        seconds[rate] = time.perf_counter() - start_s
    best = min(losses, key=losses.__getitem__)
    folder = Path(common.output) / f"{method.replace(' ', '-')}-{best:g}" / "best"
    outcome = Outcome(
        method=method, learning_rate=best, trained_parameters=counts, held_out_loss=losses[best], seconds=seconds[best],
        losses={f"{rate:g}": loss for rate, loss in losses.items()}, **judge.measure(folder),
    )  # fmt: skip
    share = "" if outcome.asked_share is None else f", {outcome.asked_share:.0%} as asked"
    print(
        f"{method:22} {counts / 1e6:6.2f}M trained, rate {best:g} of {outcome.losses}: loss {losses[best]:.4f}, "
        f"distance {outcome.distance:.1f} ({outcome.low:.1f} to {outcome.high:.1f}){share}, {seconds[best]:.0f} s",
        flush=True,
    )
    return outcome


def make_trainer(
    method: str,
    config: TrainConfig,
    bases: dict[str, Path],
    shapes: tuple[Shape, Shape],
    train: PhotoSet,
    held_out: PhotoSet,
) -> Trainer:
    kind, _ = shapes
    if method.startswith("tailors"):
        start = "nearest" if method.endswith("nearest") else None
        return Trainer(replace(config, base=str(bases["kind"]), init_from=start, label_dropout=0.0), train, held_out)
    name = "full-ft" if method == "full fine-tuning" else "lora"
    base, rank = str(bases["dense"]), kind.dit.tailor_rank
    return Trainer(replace(config, base=base, method=name, tailor_rank=rank), train, held_out)


class Judge:
    """Measures the pictures of a checkpoint against held-out photos of the new classes."""

    def __init__(self, train: PhotoSet, held_out: PhotoSet, count: int) -> None:
        self.evaluator, self.ids = EfficientNetLite0(), [info.id for info in train.classes]
        self.count = count
        self.held_out = self._classify(held_out)
        self.floor = real_floor(
            self._classify(train).features, self.held_out.features, n=min(count * len(self.ids), len(held_out))
        ).distance

    def measure(self, folder: Path) -> dict[str, float | None]:
        known = [info.id for info in read_config(folder).classes]
        checkpoint = load_checkpoint(folder, [known.index(one) for one in self.ids])
        generated = [self._draw(checkpoint, i) for i in range(len(self.ids))]
        result = compare_frechet(np.concatenate([g.features for g in generated]), self.held_out.features)
        indices = [imagenet_index(one) for one in self.ids]
        shares = [
            float(np.mean(g.logits.argmax(1) == index))
            for g, index in zip(generated, indices, strict=True)
            if index is not None
        ]
        asked = sum(shares) / len(shares) if len(shares) == len(indices) else None
        return {"distance": result.distance, "low": result.low, "high": result.high, "asked_share": asked}

    def _draw(self, checkpoint: Checkpoint, index: int) -> Classification:
        with torch.no_grad():
            sampling = choose_sampling(checkpoint.config.diffusion)
            pictures = generate_pictures(checkpoint, index, index, self.count, seed=0, sampling=sampling)
        return self.evaluator.classify(pictures)

    def _classify(self, photos: PhotoSet) -> Classification:
        return self.evaluator.classify(photos.images.permute(0, 2, 3, 1).contiguous().numpy())


if __name__ == "__main__":
    main()
