"""What would end a suite once its first cell is trained, told before: a judge or statistics that do not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from kind_core.checkpoint import read_config
from kind_core.classes import ClassInfo
from kind_core.config import preset
from kind_train.benchmark.cells import TrainingRequest
from kind_train.benchmark.stages import find_method
from kind_train.benchmark.suite import Arm, Scale
from kind_train.benchmark.tasks import Task
from kind_train.evaluate.networks import FeatureNetwork
from kind_train.evaluate.pictures import picture_size
from kind_train.evaluate.small_classifier import read_classifier
from kind_train.evaluate.statistics import read_statistics
from kind_train.preset_options import DEFAULT_PRESET


def require_judge(arms: Sequence[Arm], request: TrainingRequest, scale: Scale) -> None:
    """Raise ConfigError where the classifier looks at pictures of another size than the arms will draw."""
    if request.classifier is not None:
        info = read_classifier(request.classifier)
        for size in _sizes(arms, request, scale):
            info.require_size(size)


def require_statistics(
    arms: Sequence[Arm], request: TrainingRequest, scale: Scale, networks: Sequence[FeatureNetwork]
) -> None:
    """Raise KindError where statistics that were given are of other classes, another size or another network."""
    if request.real is None:
        return
    for task in request.tasks:
        file = statistics_file(request.real, task)
        statistics = read_statistics(file)
        statistics.require_classes([ClassInfo(id=one, names=(one,)) for one in task.classes], file)
        for size in _sizes(arms, request, scale):
            statistics.require_size(size, file)
        for network in networks:
            statistics.require_network(network, file)


def statistics_file(real: Path, task: Task) -> Path:
    """Where the statistics of a task lie: in a folder of all, or they are the file itself."""
    return real / f"{task.name}.safetensors" if real.is_dir() else real


def _sizes(arms: Sequence[Arm], request: TrainingRequest, scale: Scale) -> Iterator[int]:
    """Pixels a side of what the arms will draw, as far as bases and presets of pixels tell it."""
    for arm in arms:
        stage, options = arm.stages[0] if arm.stages else ("", {})
        if stage == "fit":
            name = options.get("preset") or scale.options.get("preset") or request.preset or DEFAULT_PRESET
            dit = preset(str(name))[0]
            if dit.in_channels == 3:
                yield request.size or dit.sample_size
            continue
        method = find_method(arm)
        is_dense = stage == "shrink" or (arm.start == "dense" if method is None else method.needs_dense)
        base = request.dense if is_dense else request.checkpoint
        if base is not None:
            yield picture_size(read_config(base))
