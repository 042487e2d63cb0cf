"""`kind-train evaluate`: the pictures of a checkpoint, measured beside real held-out photos treated the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kind_core.checkpoint import Checkpoint, load_checkpoint, read_config
from kind_core.classes import resolve_classes
from kind_core.config import check_interval
from kind_core.errors import ConfigError, DataError
from kind_core.noise import picture_seed, start_noise
from kind_core.sampling import sample_latents, to_pixels
from kind_train.data import PhotoSet, load_photos
from kind_train.evaluate.classification import (
    AskedClassShare,
    OutputStatistics,
    measure_asked_class_share,
    measure_output_statistics,
)
from kind_train.evaluate.features import Classification, EfficientNetLite0, imagenet_index
from kind_train.evaluate.frechet import FrechetComparison, compare_frechet, real_floor
from kind_train.evaluate.neighbours import CopyCheck, check_copying

OnWork = Callable[[str, int, int], None]
_BATCH = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRequest:
    """What to measure. `count` pictures a class, `cross_count` for each pair of the cross-class check."""

    checkpoint: Path
    data: Path
    val_data: Path
    classes: tuple[str, ...] = ()
    count: int = 200
    cross_count: int = 50
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    guidance_interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_interval(self.guidance_interval)
        if self.count < 2 or self.cross_count < 0:
            raise ConfigError(f"count is {self.count} and cross_count {self.cross_count}, expected 2 and 0 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassEvaluation:
    """One class: how often generated and held-out real pictures are classified as it, and their Frechet distances.

    Distances are taken on 1280 features of EfficientNet-Lite0, not Inception's, so they are no FID.
    """

    class_id: str
    name: str
    generated_share: AskedClassShare
    real_share: AskedClassShare
    distance: FrechetComparison
    floor: FrechetComparison
    copying: CopyCheck


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossClass:
    """The tailor of one class under the label of another: shares classified as either."""

    tailor: str
    label: str
    as_tailor_class: AskedClassShare
    as_label_class: AskedClassShare


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The whole report. `overall` and its floor pool all classes; `statistics` are those of the paper's table 5."""

    checkpoint_sha256: str
    sampler: str
    steps: int
    guidance_scale: float
    guidance_interval: tuple[float, float]
    classes: tuple[ClassEvaluation, ...]
    overall: FrechetComparison
    overall_floor: FrechetComparison
    cross_class: tuple[CrossClass, ...]
    statistics: dict[str, OutputStatistics]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def evaluate_checkpoint(request: EvaluationRequest, on_work: OnWork = lambda what, done, total: None) -> Evaluation:
    """Sample, classify and compare. Photos are brought to the checkpoint's size first, as the pictures are."""
    config = read_config(request.checkpoint)
    ids = request.classes or tuple(info.id for info in config.classes)
    chosen = [found.index for found in resolve_classes(ids, config.classes)]
    checkpoint = load_checkpoint(request.checkpoint, chosen)
    evaluator = EfficientNetLite0()
    asked = [_require_index(info.id, info.name) for info in checkpoint.config.classes]
    names = tuple(info.id for info in checkpoint.config.classes)
    size = config.dit.sample_size
    held_out = _classify_photos(
        evaluator, load_photos(request.val_data, size, classes=names), "held-out photos", on_work
    )
    training = _classify_photos(evaluator, load_photos(request.data, size, classes=names), "training photos", on_work)
    generated = _classify_generated(evaluator, checkpoint, request, on_work)
    diffusion = checkpoint.config.diffusion
    return Evaluation(
        checkpoint_sha256=checkpoint.sha256,
        sampler=diffusion.sampler,
        steps=request.steps or diffusion.steps,
        guidance_scale=diffusion.guidance_scale if request.guidance is None else request.guidance,
        guidance_interval=request.guidance_interval,
        classes=tuple(
            _evaluate_class(info.id, info.name, index, generated[i], held_out[i], training[i])
            for i, (info, index) in enumerate(zip(checkpoint.config.classes, asked, strict=True))
        ),
        overall=compare_frechet(_features(generated), _features(held_out)),
        overall_floor=real_floor(
            _features(training), _features(held_out), n=min(len(_features(generated)), len(_features(held_out)))
        ),
        cross_class=_cross_classes(evaluator, checkpoint, asked, request, on_work),
        statistics={
            "generated": measure_output_statistics(np.concatenate([c.logits for c in generated])),
            "held_out": measure_output_statistics(np.concatenate([c.logits for c in held_out])),
        },
    )


def generate_pictures(
    checkpoint: Checkpoint,
    label: int,
    gate: int,
    count: int,
    *,
    seed: int,
    steps: int | None,
    guidance: float | None,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
) -> np.ndarray:
    """Pictures of one label under one gate, uint8 (count, size, size, 3); picture i starts from noise `seed + i`."""
    config = checkpoint.config
    diffusion = config.diffusion
    shape = (config.dit.in_channels, config.dit.sample_size, config.dit.sample_size)
    noise = torch.from_numpy(np.stack([start_noise(picture_seed(seed, i), shape) for i in range(count)]))
    parts: list[np.ndarray] = []
    for part in torch.split(noise, _BATCH):
        latents = sample_latents(
            checkpoint.model, diffusion, part, torch.full((len(part),), label), torch.full((len(part),), gate),
            sampler=diffusion.sampler, steps=steps or diffusion.steps,
            guidance=diffusion.guidance_scale if guidance is None else guidance, guidance_interval=guidance_interval,
        )  # fmt: skip
        parts.append(to_pixels(checkpoint.decode(latents)))
    return np.concatenate(parts)


def _evaluate_class(
    class_id: str, name: str, index: int, generated: Classification, held_out: Classification, training: Classification
) -> ClassEvaluation:
    n = min(len(generated), len(held_out))
    return ClassEvaluation(
        class_id=class_id,
        name=name,
        generated_share=measure_asked_class_share(generated.logits, index),
        real_share=measure_asked_class_share(held_out.logits, index),
        distance=compare_frechet(generated.features, held_out.features, n=n),
        floor=real_floor(training.features, held_out.features, n=min(n, len(training))),
        copying=check_copying(generated.features, held_out.features, training.features),
    )


def _cross_classes(
    evaluator: EfficientNetLite0,
    checkpoint: Checkpoint,
    asked: Sequence[int],
    request: EvaluationRequest,
    on_work: OnWork,
) -> tuple[CrossClass, ...]:
    infos = checkpoint.config.classes
    if request.cross_count == 0 or len(infos) < 2:
        return ()
    pairs = [(tailor, (tailor + 1) % len(infos)) for tailor in range(len(infos))]
    results = []
    for done, (tailor, label) in enumerate(pairs):
        pictures = generate_pictures(
            checkpoint,
            label,
            tailor,
            request.cross_count,
            seed=request.seed,
            steps=request.steps,
            guidance=request.guidance,
            guidance_interval=request.guidance_interval,
        )
        logits = evaluator.classify(pictures).logits
        results.append(
            CrossClass(
                tailor=infos[tailor].name,
                label=infos[label].name,
                as_tailor_class=measure_asked_class_share(logits, asked[tailor]),
                as_label_class=measure_asked_class_share(logits, asked[label]),
            )
        )
        on_work("cross-class check", done + 1, len(pairs))
    return tuple(results)


def _classify_generated(
    evaluator: EfficientNetLite0, checkpoint: Checkpoint, request: EvaluationRequest, on_work: OnWork
) -> list[Classification]:
    results = []
    total = checkpoint.config.dit.num_classes
    for index in range(total):
        pictures = generate_pictures(
            checkpoint, index, index, request.count, seed=request.seed, steps=request.steps, guidance=request.guidance,
            guidance_interval=request.guidance_interval,
        )  # fmt: skip
        results.append(evaluator.classify(pictures))
        on_work("generated pictures", index + 1, total)
    return results


def _classify_photos(
    evaluator: EfficientNetLite0, photos: PhotoSet, what: str, on_work: OnWork
) -> list[Classification]:
    results = []
    for label in range(len(photos.classes)):
        images = photos.images[photos.labels == label].permute(0, 2, 3, 1).contiguous().numpy()
        results.append(evaluator.classify(images))
        on_work(what, label + 1, len(photos.classes))
    return results


def _features(parts: Sequence[Classification]) -> np.ndarray:
    return np.concatenate([part.features for part in parts])


def _require_index(class_id: str, name: str) -> int:
    index = imagenet_index(class_id)
    if index is None:
        raise DataError(
            f"class {name!r} ({class_id}) is not in ImageNet-1K, so the classifier cannot name it",
            "leave it out with --classes",
        )
    return index
