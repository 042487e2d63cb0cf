"""The cells of the few-shot suite, arms x shots x seeds: each its episodes, whose accuracies are kept one by one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time

import numpy as np
import torch

from kind_core.errors import ResultsError
from kind_core.files.locking import waited_for
from kind_train.benchmark.cells import RUNS, cell_file
from kind_train.benchmark.few_shot.episodes import adapt, draw_episode, measure_accuracy, require_enough
from kind_train.benchmark.few_shot.pretraining import Pretraining
from kind_train.benchmark.few_shot.tables import Answered, summarise
from kind_train.benchmark.few_shot.vit import KindViT, start_task
from kind_train.benchmark.options import BenchmarkOptions
from kind_train.benchmark.results import open_folder, write_results
from kind_train.benchmark.suite import FewShotArm, FewShotScale, FewShotSuite, Network
from kind_train.benchmark.tasks import list_held
from kind_train.data.photo_set import PhotoSet, Tell, load_photos
from kind_train.device import pick_device
from kind_train.seen_files import opened_arrays, write_arrays

_STREAM = 3  # of random numbers beside those of orders and steps


@dataclass(frozen=True, kw_only=True, slots=True)
class FewShotCell:
    """One arm on tasks of so many shots, with one seed of weights, order of photos and episodes."""

    arm: FewShotArm
    shots: int
    seed: int

    @property
    def name(self) -> str:
        """As its file is called."""
        return f"{self.arm.name}--{self.shots}-shot--{self.seed}"


def list_few_shot(arms: Sequence[FewShotArm], scale: FewShotScale) -> list[FewShotCell]:
    """Shots by shots, so that what lies side by side in a table is there early."""
    return [
        FewShotCell(arm=arm, shots=shots, seed=seed) for seed in scale.seeds for shots in scale.shots for arm in arms
    ]


class FewShotRunner:
    """Makes the cells of one folder: networks learn from `base_data`, tasks are of the classes of `data`."""

    def __init__(self, suite: FewShotSuite, scale: FewShotScale, options: BenchmarkOptions, tell: Tell) -> None:
        self.suite, self.scale, self.output, self.tell = suite, scale, options.output, tell
        self.base_data, self.data = str(options.base_data), str(options.data)
        self.device = str(pick_device(options.device))
        self._bases: dict[tuple[Network, int], tuple[KindViT, list[tuple[float, float]]]] = {}
        self._photos: dict[str, PhotoSet] = {}
        self.num_classes = len(list_held(self.base_data))
        shape = {name: value for name, value in asdict(scale).items() if name not in ("shots", "seeds")}
        identity = {"suite": suite.name, "base_data": self.base_data, "data": self.data, **shape}
        open_folder(self.output, identity, resume=options.goes_on)

    def make(self, cell: FewShotCell, place: str) -> None:
        """Learn and answer the episodes of a cell that is not there yet; `place` is told before its name."""
        file = cell_file(self.output, cell.name)
        if file.exists():
            return
        self.tell(f"{place}{cell.name} ...")
        base, curve = self._base(cell.arm.network, cell.seed)
        accuracies, seconds = self._answer(cell, base)
        figures = {
            "arm": cell.arm.name,
            "title": cell.arm.title,
            "shots": cell.shots,
            "seed": cell.seed,
            "episodes": len(accuracies),
            "accuracy": float(np.mean(accuracies)),
            "trained": _count_trained(base, cell.arm, self.scale),
            "seconds_per_task": float(np.mean(seconds)),
            "curve": curve,
        }
        write_arrays(file, figures, {"accuracies": np.array(accuracies)})
        self._partial(cell).unlink(missing_ok=True)

    def _answer(self, cell: FewShotCell, base: KindViT) -> tuple[list[float], list[float]]:
        """Accuracy and seconds of the CPU of each episode; those of a killed cell are read where they lie."""
        photos, partial = self._load(self.data), self._partial(cell)
        require_enough(self.data, photos.classes, photos.labels.tolist(), self.scale)
        partial.parent.mkdir(parents=True, exist_ok=True)
        kept = _read_whole(partial)[: self.scale.episodes]
        with partial.open("w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(line) + "\n" for line in kept)
            for number in range(len(kept), self.scale.episodes):
                kept.append(self.answer_one(cell, base, photos, number))
                lines.write(json.dumps(kept[-1]) + "\n")
                lines.flush()
        return [one[0] for one in kept], [one[1] for one in kept]

    def answer_one(self, cell: FewShotCell, base: KindViT, photos: PhotoSet, number: int) -> list[float]:
        """Accuracy and seconds of the CPU of the episode of a number."""
        # of one number and shots every method has the same episode and random numbers
        generator = torch.Generator().manual_seed(((cell.seed * 1009 + cell.shots) * 1_000_003 + number) * 4 + _STREAM)
        episode = draw_episode(photos.labels, self.scale, cell.shots, generator)
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        before = process_time()
        task = adapt(base, photos, episode, cell.arm, self.scale, generator)
        return [measure_accuracy(task, photos, episode), process_time() - before]

    def _base(self, network: Network, seed: int) -> tuple[KindViT, list[tuple[float, float]]]:
        """A pre-trained network and its losses; others that need it at the same time wait for the first."""
        key = (network, seed)
        if key not in self._bases:
            folder = self.output / RUNS / f"{network}--{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            with waited_for(folder / "network"):
                made = Pretraining(network, self.num_classes, self.scale, seed, folder, self.device)
                self._bases[key] = (made.read() if made.is_done else self._pretrain(made), made.curve)
        return self._bases[key]

    def _pretrain(self, made: Pretraining) -> KindViT:
        self.tell(f"{made.folder.name}: {made.steps} steps of pre-training ...")
        return made.run(self._load(self.base_data))

    def _load(self, path: str) -> PhotoSet:
        if path not in self._photos:
            self._photos[path] = load_photos(path, self.scale.size, classes=list_held(path), tell=self.tell)
        return self._photos[path]

    def _partial(self, cell: FewShotCell) -> Path:
        return self.output / RUNS / f"{cell.name}.jsonl"

    def write(self) -> None:
        """Write what the folder shows, of the cells that are there."""
        found = []
        for cell in list_few_shot(self.suite.arms, self.scale):
            file = cell_file(self.output, cell.name)
            if file.exists():
                with opened_arrays(file) as (figures, arrays):
                    found.append(Answered(figures=figures, accuracies=arrays["accuracies"]))
        write_results(self.output, summarise(self.suite, self.scale, found, self.base_data, self.data))


def _read_whole(file: Path) -> list[list[float]]:
    """The lines of a killed cell, without one that was cut."""
    if not file.exists():
        return []
    whole = [line for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]
    try:
        return [[float(value) for value in json.loads(line)] for line in whole]
    except (ValueError, TypeError) as error:
        raise ResultsError(f"{file} is damaged: {error}", "remove it: its tasks are learned again") from error


def _count_trained(base: KindViT, arm: FewShotArm, scale: FewShotScale) -> int:
    """Numbers that a task trains."""
    if arm.train == "nothing":
        return 0
    task = start_task(base, scale.ways, scale.task_rank)
    return task.tailors.weight.numel() if arm.train == "tailors" else sum(p.numel() for p in task.parameters())
