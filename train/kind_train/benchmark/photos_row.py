"""The row that a table is read against: real photos in the place of pictures, as many, beside all the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from kind_train.benchmark.cells import Cell
from kind_train.benchmark.stored import CellFigures, Stored
from kind_train.benchmark.suite import Arm
from kind_train.benchmark.tasks import Task
from kind_train.evaluate.against import Measured, measure_asked, measure_distances
from kind_train.evaluate.judges import Judge
from kind_train.evaluate.moments import MomentSums
from kind_train.evaluate.statistics import LOGITS, RealStatistics

_ARM = Arm(name="photos", title="held-out photos", stages=())
_LEAST = 8  # photos on either side, so that a covariance and neighbours are there


def part_photos(
    task: Task, real: RealStatistics, count: int, judge: Judge | None
) -> tuple[Stored, RealStatistics] | None:
    """`count` of the kept photos of a task as if they had been drawn, and statistics of the others.

    Of fewer than twice `count` it is half of them; None where that is next to nothing.
    """
    kept = len(real.labels)
    size = min(count, kept // 2)
    if size < _LEAST:
        return None
    order = np.random.default_rng(0).permutation(kept)
    drawn, others = np.sort(order[:size]), np.sort(order[size:])
    seen = {key: rows[drawn] for key, rows in real.rows.items()}
    rest = {key: rows[others] for key, rows in real.rows.items()}
    moments = {}
    for key in real.moments:
        sums = MomentSums()
        sums.add(rest[key])
        moments[key] = sums.moments()
    parted = replace(real, labels=real.labels[others], rows=rest, moments=moments)
    overall = _measure(seen, parted)
    if judge is not None and (logits := seen.get((real.networks[0].name, LOGITS))) is not None:
        asked = measure_asked(logits, real.labels[drawn], [judge.index(info) for info in real.classes])
        overall |= {} if asked is None else {"called_as_asked": asked}
    figures: CellFigures = {
        "arm": _ARM.name,
        "title": _ARM.title,
        "task": task.name,
        "seed": 0,
        "classes": list(task.classes),
        "images": 0,
        "curve": (),
        "seconds_per_step": None,
        "num_images": size,
        "overall": {name: one.to_dict() for name, one in overall.items()},
    }
    return Stored(cell=Cell(arm=_ARM, task=task, seed=0), figures=figures, pictures=None, seen=seen), parted


def _measure(seen: Mapping[tuple[str, str], np.ndarray], others: RealStatistics) -> dict[str, Measured]:
    figures: dict[str, Measured] = {}
    for network in others.networks:
        features = [feature for name, feature in others.moments if name == network.name]
        figures |= measure_distances(
            {feature: seen[network.name, feature] for feature in features},
            {feature: others.moments[network.name, feature] for feature in features},
            {feature: others.rows[network.name, feature] for feature in features},
        )
    return figures
