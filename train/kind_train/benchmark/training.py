"""A training suite: makes cells, each a file with its figures, first pictures and what the networks saw."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from kind_core.checkpoint import hash_checkpoint, read_config
from kind_core.classes import ClassInfo
from kind_core.config import preset
from kind_core.costs.methods import find_cost
from kind_core.errors import DataError
from kind_core.files.hashing import hash_file
from kind_core.files.litter import is_hidden
from kind_core.files.locking import waited_for
from kind_core.files.staging import staged
from kind_train.benchmark.cells import REAL, RUNS, Cell, PointFigures, cell_file, list_cells_of, read_cell
from kind_train.benchmark.options import BenchmarkOptions
from kind_train.benchmark.results import leave_out, open_folder, write_results
from kind_train.benchmark.stages import Made, find_adapted, find_base, find_need, find_rank, make_checkpoint
from kind_train.benchmark.suite import Arm, Scale, TrainingSuite
from kind_train.benchmark.summary import summarise
from kind_train.benchmark.tasks import Task
from kind_train.benchmark.weights import MEASURES
from kind_train.data.latents import is_cache
from kind_train.data.photo_set import Tell, stream_photos
from kind_train.device import pick_device
from kind_train.evaluate.against import FigureEntry, measure_asked
from kind_train.evaluate.beside_statistics import compare, draw_and_observe
from kind_train.evaluate.judges import Judge, open_judge, open_observers
from kind_train.evaluate.networks import FeatureNetwork
from kind_train.evaluate.pictures import CheckpointDrawer, DrawSettings, picture_size
from kind_train.evaluate.small_classifier import read_classifier
from kind_train.evaluate.statistics import (
    LOGITS,
    STATISTICS,
    RealStatistics,
    collect_statistics,
    read_statistics,
    save_statistics,
)
from kind_train.methods.peft_methods import PeftMethod, import_peft
from kind_train.preset_options import DEFAULT_PRESET
from kind_train.run.run_folder import STATE_NAME
from kind_train.seen_files import SeenFiles, write_arrays

_SEEN = "seen"  # of a cell that is being drawn, beside its stages
_SHOWN = 12  # pictures that a cell keeps, of as many classes as there are


def choose_arms(arms: Sequence[Arm], options: BenchmarkOptions, tell: Tell) -> list[Arm]:
    """Those that can be made, the others told; raises KindError before anything is trained.

    Where none can, where a base is of the other kind, or where peft is missing.
    """
    kept = leave_out(arms, find_need, options, tell)
    for method, base in filter(None, (find_adapted(arm, options) for arm in kept)):
        if isinstance(method, PeftMethod):
            import_peft(method.name)
        method.require_base(read_config(base).dit, str(base))
    return kept


class TrainingRunner:
    """Makes the cells of one folder."""

    def __init__(
        self,
        suite: TrainingSuite,
        arms: Sequence[Arm],
        tasks: Sequence[Task],
        options: BenchmarkOptions,
        scale: Scale,
        tell: Tell,
    ) -> None:
        self.suite, self.tasks, self.options, self.scale, self.tell = suite, tasks, options, scale, tell
        device = str(pick_device(options.device))
        self.networks: tuple[FeatureNetwork, ...] = ()
        self.judge: Judge | None = None
        if scale.count:
            _require_judge(arms, options, scale)
            self.judge = open_judge(options.classifier, device)
            self.networks = open_observers(self.judge, options.inception_weights, options.dinov2, device)
            _require_statistics(arms, tasks, options, scale, self.networks)
        open_folder(options.output, self._identity(), resume=options.goes_on)

    def make(self, cell: Cell, place: str) -> None:
        """Train, draw, measure and write a cell that is not there yet; `place` is told before its name."""
        file = cell_file(self.options.output, cell.name)
        if file.exists():
            return
        self.tell(f"{place}{cell.name} ...")
        points: list[PointFigures] = []
        arrays: dict[str, np.ndarray] = {}
        for images in self.scale.points or (self.scale.images,):
            made = make_checkpoint(cell, self.options, self.scale, images)
            figures, arrays = self._measure(cell, made, images)
            points.append(figures)
        about: dict[str, object] = {
            "arm": cell.arm.name,
            "title": cell.arm.title,
            "task": cell.task.name,
            "seed": cell.seed,
            "classes": list(cell.task.classes),
            **_count(cell, self.options),
            **points[-1],
        }
        if len(points) > 1:
            about["points"] = points
        write_arrays(file, about, arrays)
        run = self.options.output / RUNS / cell.name
        for folder in (*run.glob(f"*/{STATE_NAME}"), *run.glob(_SEEN)):
            shutil.rmtree(folder)  # the cell is whole: what its runs would go on with is not needed

    def _measure(self, cell: Cell, made: Made, images: int) -> tuple[PointFigures, dict[str, np.ndarray]]:
        figures: PointFigures = {
            "images": images,
            "curve": made.curve,
            "seconds_per_step": made.seconds_per_step,
            "processor_seconds": made.processor_seconds,
        }
        if made.curve:
            figures["held_out_loss"] = made.curve[-1][1]
        for name in self.suite.measures:
            for key, one in MEASURES[name](made.checkpoint, cell.task).items():
                figures[key] = one.to_dict()
        if not self.scale.count:
            return figures, {}
        assert self.judge is not None
        options = self.options
        settings = DrawSettings(
            seed=options.seed, device=options.device, steps=options.steps, guidance=options.guidance
        )
        drawer = CheckpointDrawer(made.checkpoint, cell.task.classes, settings)
        real = self._real(cell.task, drawer)
        kept = SeenFiles(options.output / RUNS / cell.name / _SEEN / str(images))
        seen, labels = draw_and_observe(drawer, self.networks, self.scale.count, lambda what, done, total: None, kept)
        overall: dict[str, FigureEntry] = {}
        for network, observed in zip(self.networks, seen, strict=True):
            overall |= {name: one.to_dict() for name, one in compare(network, observed, real).items()}
        outputs = [self.judge.index(info) for info in drawer.classes]
        asked = measure_asked(seen[0][LOGITS], labels, outputs)
        if asked is not None:
            overall["called_as_asked"] = asked.to_dict()
        each = max(1, _SHOWN // len(drawer.classes))
        first = [drawer.draw(label, label, each) for label in range(min(_SHOWN, len(drawer.classes)))]
        arrays = {f"{network.name}/{name}": rows for network, one in zip(self.networks, seen, strict=True)
                  for name, rows in one.items()}  # fmt: skip
        arrays |= {"pictures": np.concatenate(first), "labels": labels}
        figures |= {"num_images": len(labels), "overall": overall}
        return figures, arrays

    def _real(self, task: Task, drawer: CheckpointDrawer) -> RealStatistics:
        """Statistics of the real photos of a task: given, or seen once for all cells."""
        file = _statistics_file(self.options, task)
        if self.options.real is None and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with waited_for(file):  # somebody else may see them now
                if not file.exists():
                    self._see_photos(task, drawer, file)
        statistics = read_statistics(file)
        statistics.require_photos(drawer.classes, drawer.size, file)
        statistics.require_networks(self.networks, file)
        return statistics

    def _see_photos(self, task: Task, drawer: CheckpointDrawer, file: Path) -> None:
        if is_cache(task.real_data):
            raise DataError(
                f"task {task.name!r}: {task.real_data} holds latents, pictures are compared with photos",
                "give --real, the statistics of the photos: kind-train statistics",
            )
        self.tell(f"{task.name}: real photos ...")
        photos = stream_photos(task.real_data, drawer.size, classes=drawer.classes, tell=self.tell)
        found = collect_statistics(photos, self.networks)
        with staged(file, STATISTICS, force=True) as temporary:
            save_statistics(temporary, found)

    def _identity(self) -> Mapping[str, object]:
        """What all cells of the folder share, whichever of them are made."""
        options, scale = self.options, self.scale
        bases = {name: "" if path is None else hash_checkpoint(path)
                 for name, path in (("checkpoint", options.checkpoint), ("dense", options.dense))}  # fmt: skip
        given = {} if options.real is None else {"real": _hash_real(options.real)}
        tasks = {task.name: [task.data, task.val_data, list(task.classes)] for task in self.tasks}
        return {
            "suite": self.suite.name,
            **bases,
            **given,
            "tasks": tasks,
            "base_data": options.base_data,
            "preset": options.preset,
            "size": options.size,
            "images": scale.images,
            "base_images": scale.base_images,
            "points": list(scale.points),
            "batch_size": scale.batch_size,
            "count": scale.count,
            "options": {key: str(value) for key, value in scale.options.items()},
            "networks": {network.name: network.sha256 for network in self.networks},
            "steps": options.steps,
            "guidance": options.guidance,
            "seed": options.seed,
        }

    def write(self) -> None:
        """Write what the folder shows, of the cells that are there, of whatever arms."""
        output = self.options.output
        cells = list_cells_of(self.suite.arms, self.tasks, self.scale)
        stored = [read_cell(cell, output) for cell in cells if cell_file(output, cell.name).exists()]
        tasks = {one.cell.task.name: one.cell.task for one in stored if one.seen}
        real = {name: read_statistics(_statistics_file(self.options, task)) for name, task in tasks.items()}
        write_results(output, summarise(self.suite, self.scale, stored, real, self.judge))


def _hash_real(real: Path) -> dict[str, str]:
    inside = real.glob("*.safetensors") if real.is_dir() else [real]
    files = sorted(file for file in inside if not is_hidden(file.name))
    if not files:
        raise DataError(
            f"--real: {real} holds no statistics", "write TASK.safetensors there with kind-train statistics"
        )
    return {file.name: hash_file(file) for file in files}


def _count(cell: Cell, options: BenchmarkOptions) -> dict[str, object]:
    """Trained parameters and FLOPs of a pass, as the paper counts them; nothing of what adapts no base."""
    if (found := find_adapted(cell.arm, options)) is None:
        return {}
    method, base = found
    rank = find_rank(cell.arm.stages[0][1], options)
    plan, classes = method.plan(read_config(base).dit, rank), len(cell.task.classes)
    cost = find_cost(method.name)
    return {"trained": cost.trained(plan, classes), "flops": cost.flops(plan, classes)}


def _require_judge(arms: Sequence[Arm], options: BenchmarkOptions, scale: Scale) -> None:
    """Raise ConfigError where the classifier looks at pictures of another size than the arms will draw."""
    if options.classifier is not None:
        info = read_classifier(options.classifier)
        for size in _sizes(arms, options, scale):
            info.require_size(size)


def _require_statistics(
    arms: Sequence[Arm],
    tasks: Sequence[Task],
    options: BenchmarkOptions,
    scale: Scale,
    networks: Sequence[FeatureNetwork],
) -> None:
    """Raise KindError where statistics that were given are of other classes, another size or another network."""
    sizes = [*_sizes(arms, options, scale)]
    for task in tasks if options.real is not None else ():
        file = _statistics_file(options, task)
        statistics = read_statistics(file)
        for size in sizes or [statistics.size]:  # of latents nothing tells it
            statistics.require_photos([ClassInfo(id=one, names=(one,)) for one in task.classes], size, file)
        statistics.require_networks(networks, file)


def _statistics_file(options: BenchmarkOptions, task: Task) -> Path:
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
