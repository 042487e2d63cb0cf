"""What would end a suite once its first cell is trained, told before: a judge or statistics that do not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from kind_core.checkpoint import read_config
from kind_core.classes import ClassInfo
from kind_core.config import preset
from kind_train.benchmark.cells import REAL
from kind_train.benchmark.options import BenchmarkOptions
from kind_train.benchmark.stages import find_base
from kind_train.benchmark.suite import Arm, Scale
from kind_train.benchmark.tasks import Task
from kind_train.evaluate.networks import FeatureNetwork
from kind_train.evaluate.pictures import picture_size
from kind_train.evaluate.small_classifier import read_classifier
from kind_train.evaluate.statistics import read_statistics
from kind_train.preset_options import DEFAULT_PRESET


def require_judge(arms: Sequence[Arm], options: BenchmarkOptions, scale: Scale) -> None:
    """Raise ConfigError where the classifier looks at pictures of another size than the arms will draw."""
    if options.classifier is not None:
        info = read_classifier(options.classifier)
        for size in _sizes(arms, options, scale):
            info.require_size(size)


def require_statistics(
    arms: Sequence[Arm],
    tasks: Sequence[Task],
    options: BenchmarkOptions,
    scale: Scale,
    networks: Sequence[FeatureNetwork],
) -> None:
    """Raise KindError where statistics that were given are of other classes, another size or another network."""
    sizes = [*_sizes(arms, options, scale)]
    for task in tasks if options.real is not None else ():
        file = statistics_file(options, task)
        statistics = read_statistics(file)
        for size in sizes or [statistics.size]:  # of latents nothing tells it
            statistics.require_photos([ClassInfo(id=one, names=(one,)) for one in task.classes], size, file)
        statistics.require_networks(networks, file)


def statistics_file(options: BenchmarkOptions, task: Task) -> Path:
    """Where the statistics of a task lie: in a folder of all, or they are the file itself."""
    if options.real is None:
        return options.output / REAL / f"{task.name}.safetensors"
    return options.real / f"{task.name}.safetensors" if options.real.is_dir() else options.real


def _sizes(arms: Sequence[Arm], options: BenchmarkOptions, scale: Scale) -> Iterator[int]:
    """Pixels a side of what the arms will draw, as far as bases and presets of pixels tell it."""
    for arm in arms:
        if arm.stages and arm.stages[0][0] == "fit":
            name = arm.stages[0][1].get("preset") or scale.options.get("preset") or options.preset or DEFAULT_PRESET
            dit = preset(str(name))[0]
            if dit.in_channels == 3:
                yield options.size or dit.sample_size
        elif (base := find_base(arm, options)) is not None:
            yield picture_size(read_config(base))
