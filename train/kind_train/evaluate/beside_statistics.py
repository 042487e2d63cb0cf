"""An evaluation beside statistics of real photos: what `kind-train evaluate --real` measures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

import numpy as np

from kind_core.files.hashing import hash_file
from kind_train.device import pick_device
from kind_train.evaluate.against import FigureEntry, Measured, measure_asked, measure_distances
from kind_train.evaluate.judges import OnWork, open_judge, open_observers
from kind_train.evaluate.networks import FeatureNetwork, Observed
from kind_train.evaluate.pictures import Drawer
from kind_train.evaluate.run import EvaluationRequest, identify, open_drawer
from kind_train.evaluate.statistics import LOGITS, RealStatistics, read_statistics
from kind_train.evaluation import KeptEvaluation
from kind_train.seen_files import Recall, recall_nothing


class StatisticsSource(TypedDict):
    """The statistics that pictures were held against."""

    file: str
    sha256: str
    photos_sha256: str
    photos: int


class StatisticsReport(TypedDict):
    """What `--json` prints and `--output` holds; `overall` by network and figure."""

    source: str
    sha256: str
    classes: list[str]
    sampling: dict[str, object]
    statistics: StatisticsSource
    networks: dict[str, str]
    overall: dict[str, dict[str, FigureEntry]]


def evaluate_against(
    request: EvaluationRequest,
    real: Path,
    on_work: OnWork = lambda what, done, total: None,
    *,
    kept: KeptEvaluation | None = None,
) -> StatisticsReport:
    """The report as JSON values; raises DataError where `real` is of other photos or of another network.

    What was seen of each class is `kept`, if at all, and not seen again.
    """
    statistics, drawer = read_statistics(real), open_drawer(request)
    statistics.require_photos(drawer.classes, drawer.size, real)
    device = str(pick_device(request.device))
    judge = open_judge(request.classifier, device)
    networks = open_observers(judge, request.inception_weights, request.dinov2, device)
    statistics.require_networks(networks, real)
    recall: Recall = recall_nothing
    if kept is not None:
        recall = kept.begin(identify(request, drawer, networks, {"--real": hash_file(real)}))
    seen, labels = draw_and_observe(drawer, networks, request.count, on_work, recall)
    figures: dict[str, dict[str, FigureEntry]] = {}
    for network, observed in zip(networks, seen, strict=True):
        figures[network.name] = {name: one.to_dict() for name, one in compare(network, observed, statistics).items()}
    asked = measure_asked(seen[0][LOGITS], labels, [judge.index(info) for info in drawer.classes])
    if asked is not None:
        figures[networks[0].name]["called_as_asked"] = asked.to_dict()
    drawing = drawer.drawing
    return {
        "source": drawing.source,
        "sha256": drawing.sha256,
        "classes": [info.id for info in drawer.classes],
        "sampling": asdict(drawing.sampling),
        "statistics": {
            "file": str(real),
            "sha256": hash_file(real),
            "photos_sha256": statistics.photos_sha256,
            "photos": sum(statistics.counts),
        },
        "networks": {network.name: network.sha256 for network in networks},
        "overall": figures,
    }


def draw_and_observe(
    drawer: Drawer, networks: tuple[FeatureNetwork, ...], count: int, on_work: OnWork, recall: Recall = recall_nothing
) -> tuple[list[Observed], np.ndarray]:
    """What each network sees in `count` pictures of every class, and the labels (n,) of these.

    `recall` is asked for what was seen of a class, by its number.
    """
    parts: list[list[Observed]] = [[] for _ in networks]
    for label in range(len(drawer.classes)):

        def see(label: int = label) -> list[Observed]:
            pictures = drawer.draw(label, label, count)
            return [network.observe(pictures) for network in networks]

        for seen, observed in zip(parts, recall(str(label), see), strict=True):
            seen.append(observed)
        on_work("generated pictures", label + 1, len(drawer.classes))
    labels = np.repeat(np.arange(len(drawer.classes)), count)
    return [{name: np.concatenate([one[name] for one in seen]) for name in seen[0]} for seen in parts], labels


def compare(network: FeatureNetwork, observed: Observed, statistics: RealStatistics) -> dict[str, Measured]:
    """The figures of one network beside its own statistics."""
    moments = {feature: one for (name, feature), one in statistics.moments.items() if name == network.name}
    rows = {feature: one for (name, feature), one in statistics.rows.items() if name == network.name}
    return measure_distances(observed, moments, rows)
