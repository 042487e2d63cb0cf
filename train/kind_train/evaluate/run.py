"""`kind-train evaluate`: the pictures of a checkpoint or a bundle beside real held-out photos treated the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from kind_core.errors import ConfigError
from kind_train.data.photo_set import PhotoSet, Tell, ignore, load_photos
from kind_train.data.training_set import describe_overlap
from kind_train.device import pick_device
from kind_train.evaluate.classification import (
    AskedClassShare,
    OutputStatistics,
    measure_asked_class_share,
    measure_output_statistics,
)
from kind_train.evaluate.features import Classification
from kind_train.evaluate.frechet import FrechetComparison, compare_frechet, real_floor
from kind_train.evaluate.judges import Judge, OnWork, Viewing, open_judge, open_second_judges, require_independent
from kind_train.evaluate.neighbours import CopyCheck, ManifoldCoverage, check_copying, measure_coverage, require_sets
from kind_train.evaluate.networks import FeatureNetwork, Figure, Observed, as_report, open_networks
from kind_train.evaluate.pictures import NULL, BundleDrawer, CheckpointDrawer, Drawer
from kind_train.evaluation import EvaluationRequest as EvaluationRequest
from kind_train.evaluation import KeptEvaluation
from kind_train.seen_files import Recall, recall_nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassEvaluation:
    """One class: how often generated and held-out real pictures are classified as it, and their Frechet distances.

    Shares are None for a class that the judge does not know. Distances are taken on the judge's features, not
    Inception's, so they are no FID.
    """

    class_id: str
    name: str
    generated_share: AskedClassShare | None
    real_share: AskedClassShare | None
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
    """The whole report. `overall` and its floor pool all classes; `statistics` are those of the paper's table 5.

    All but `metrics` is what `judge` says, whose weights have `judge_sha256`.
    `sha256` is that of the checkpoint's files or of the bundle's manifest. Of a bundle there is no cross-class check
    and no learngene alone: its tailors are merged. Without `takes_guidance` guidance is built into the model, and
    `guidance_scale` says nothing. `metrics` are the figures of the other judges and those of published
    work, on all classes together, of those networks whose weights there were: `lite2_distance`, `lite2_precision`,
    `lite2_recall` and `lite2_called_as_asked`, the same of `lite0`, `fid`, `sfid`, `inception_score`,
    `inception_precision`, `inception_recall` and `fdd`, each under its own name in the report.
    """

    source: str
    sha256: str
    judge: str
    judge_sha256: str
    sampler: str
    steps: int
    guidance_scale: float
    guidance_interval: tuple[float, float]
    takes_guidance: bool
    classes: tuple[ClassEvaluation, ...]
    overall: FrechetComparison
    overall_floor: FrechetComparison
    coverage: ManifoldCoverage
    coverage_floor: ManifoldCoverage
    cross_class: tuple[CrossClass, ...]
    statistics: dict[str, OutputStatistics]
    metrics: dict[str, Figure]

    def to_dict(self) -> dict[str, object]:
        report = asdict(self)
        del report["metrics"]
        return report | as_report(self.metrics)


def evaluate(
    request: EvaluationRequest,
    on_work: OnWork = lambda what, done, total: None,
    *,
    networks: Sequence[FeatureNetwork] | None = None,
    judge: Judge | None = None,
    tell: Tell = ignore,
    kept: KeptEvaluation | None = None,
) -> Evaluation:
    """Draw, classify and compare. Photos are brought to the pictures' size first.

    `networks` take the place of those that the request names and of the second judges, `judge` that of the first.
    `tell` gets the lines about photos that are not read. What is seen is `kept`, if at all, and not seen again.
    """
    if request.val_data is None or request.data is None:
        raise ConfigError("expected photos in --data and --val-data", "or compare with --real")
    paths = (request.val_data, request.data)
    device = str(pick_device(request.device))
    evaluator = open_judge(request.classifier, device) if judge is None else judge
    drawer = open_drawer(request)
    require_independent(evaluator, drawer.drawing.training)
    if networks is None:
        networks = (
            *open_second_judges(evaluator, drawer.classes, drawer.drawing.training, device),
            *open_networks(request.inception_weights, request.dinov2, device),
        )
    asked = [evaluator.index(info) for info in drawer.classes]
    held_out_photos, training_photos = (
        load_photos(path, drawer.size, classes=drawer.classes, tell=tell) for path in paths
    )
    require_sets(zip(paths, (held_out_photos, training_photos), strict=True))
    if (overlap := describe_overlap(training_photos, held_out_photos)) is not None:
        tell(overlap)
    recall: Recall = recall_nothing
    if kept is not None:
        photos = {"--data": _hash_photos(training_photos), "--val-data": _hash_photos(held_out_photos)}
        recall = kept.begin(identify(request, drawer, (evaluator, *networks), photos))
    totals = (request.count * len(asked), len(held_out_photos), len(training_photos))
    views = [
        Viewing(evaluator, networks, name, recall, n=min(totals), total=total, seed=request.seed)
        for name, total in zip(("generated", "held-out", "training"), totals, strict=True)
    ]
    of_pictures, of_held_out, of_training = views
    held_out = of_held_out.show_photos(held_out_photos, "held-out photos", on_work)
    training = of_training.show_photos(training_photos, "training photos", on_work)
    generated = []
    for index in range(len(asked)):
        generated.append(of_pictures.show(index, request.count, partial(drawer.draw, index, index, request.count)))
        on_work("generated pictures", index + 1, len(asked))
    ours, real, seen = (np.concatenate([one.features for one in parts]) for parts in (generated, held_out, training))
    n = min(len(ours), len(real), len(seen))
    drawing = drawer.drawing
    return Evaluation(
        source=drawing.source,
        sha256=drawing.sha256,
        judge=evaluator.name,
        judge_sha256=evaluator.sha256,
        sampler=drawing.sampling.sampler,
        steps=drawing.sampling.steps,
        guidance_scale=drawing.sampling.guidance_scale,
        guidance_interval=drawing.sampling.guidance_interval,
        takes_guidance=drawing.sampling.takes_guidance,
        classes=tuple(
            _evaluate_class(info.id, info.name, index, generated[i], held_out[i], training[i])
            for i, (info, index) in enumerate(zip(drawer.classes, asked, strict=True))
        ),
        overall=compare_frechet(ours, real, n=n),
        overall_floor=real_floor(seen, real, n=n),
        coverage=measure_coverage(ours, real, n=n),
        coverage_floor=measure_coverage(seen, real, n=n),
        cross_class=_cross_classes(evaluator, drawer, asked, request, on_work, recall),
        statistics={
            "generated": measure_output_statistics(np.concatenate([c.logits for c in generated])),
            "held_out": measure_output_statistics(np.concatenate([c.logits for c in held_out])),
            **_learngene_statistics(evaluator, drawer, request.count, recall),
        },
        metrics=_compare(networks, views, on_work),
    )


def identify(
    request: EvaluationRequest, drawer: Drawer, networks: Sequence[Judge | FeatureNetwork], real: Mapping[str, str]
) -> dict[str, object]:
    """What decides every picture and what is seen of it; `real` has hashes of the real photos."""
    drawing = drawer.drawing
    return {
        "classes": [info.id for info in drawer.classes],
        "model": drawing.sha256,  # of what those classes need
        "runtime": drawing.runtime,
        **asdict(drawing.sampling),
        "count": request.count,
        "cross_count": request.cross_count,
        "cross_matrix": request.cross_matrix,
        "seed": request.seed,
        "device": str(pick_device(request.device)),
        **{network.name: network.sha256 for network in networks},
        **real,
    }


def _hash_photos(photos: PhotoSet) -> str:
    digest = hashlib.sha256(photos.images.contiguous().numpy().data)
    digest.update(photos.labels.numpy().data)
    return digest.hexdigest()


def open_drawer(request: EvaluationRequest) -> Drawer:
    """What draws the pictures that a request asks for."""
    if request.bundle is not None:
        return BundleDrawer(request.bundle, request.runtime, request.classes, request)
    assert request.checkpoint is not None
    return CheckpointDrawer(request.checkpoint, request.classes, request)


def _compare(networks: Sequence[FeatureNetwork], views: Sequence[Viewing], on_work: OnWork) -> dict[str, Figure]:
    metrics: dict[str, Figure] = {}
    observed = zip(networks, *(view.observed() for view in views), strict=True)
    for done, (network, generated, held_out, training) in enumerate(observed, 1):
        metrics |= network.compare(generated, held_out, training)
        on_work(network.name, done, len(networks))
    return metrics


def _learngene_statistics(evaluator: Judge, drawer: Drawer, count: int, recall: Recall) -> dict[str, OutputStatistics]:
    """Table 5's last row: the learngene alone, without label and gate."""
    if not drawer.can_mix:
        return {}
    (seen,) = recall("learngene", partial(_judge_mix, evaluator, drawer, NULL, NULL, count))
    return {"learngene": measure_output_statistics(seen["logits"])}


def _judge_mix(evaluator: Judge, drawer: Drawer, label: int, gate: int, count: int) -> list[Observed]:
    return [{"logits": evaluator.classify(drawer.draw(label, gate, count)).logits}]


def _evaluate_class(
    class_id: str,
    name: str,
    index: int | None,
    generated: Classification,
    held_out: Classification,
    training: Classification,
) -> ClassEvaluation:
    n = min(len(generated), len(held_out), len(training))
    ours, real = (None if index is None else measure_asked_class_share(c.logits, index) for c in (generated, held_out))
    return ClassEvaluation(
        class_id=class_id,
        name=name,
        generated_share=ours,
        real_share=real,
        distance=compare_frechet(generated.features, held_out.features, n=n),
        floor=real_floor(training.features, held_out.features, n=n),
        copying=check_copying(generated.features, held_out.features, training.features),
    )


def _cross_classes(
    evaluator: Judge,
    drawer: Drawer,
    asked: Sequence[int | None],
    request: EvaluationRequest,
    on_work: OnWork,
    recall: Recall,
) -> tuple[CrossClass, ...]:
    infos, count = drawer.classes, len(drawer.classes)
    if request.cross_count == 0 or count < 2 or not drawer.can_mix:
        return ()
    apart = range(1, count) if request.cross_matrix else (1,)
    pairs = [
        (tailor, label)
        for tailor in range(count)
        for label in ((tailor + step) % count for step in apart)
        if asked[tailor] is not None and asked[label] is not None
    ]
    results = []
    for done, (tailor, label) in enumerate(pairs):
        see = partial(_judge_mix, evaluator, drawer, label, tailor, request.cross_count)
        (seen,) = recall(f"tailor-{tailor}-label-{label}", see)
        of_tailor, of_label = (measure_asked_class_share(seen["logits"], asked[one] or 0) for one in (tailor, label))
        results.append(
            CrossClass(
                tailor=infos[tailor].name, label=infos[label].name, as_tailor_class=of_tailor, as_label_class=of_label
            )
        )
        on_work("cross-class check", done + 1, len(pairs))
    return tuple(results)
