"""Tasks of a few photos a class, drawn from a data set by number: the same ones for every method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kind_core.classes import ClassInfo
from kind_core.errors import DataError
from kind_train.benchmark.few_shot.suite import FewShotScale
from kind_train.benchmark.tasks import look_into


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """Indices of photos, `support` to learn from and `queries` to be asked about, class by class, and their labels."""

    support: Tensor
    support_labels: Tensor
    queries: Tensor
    query_labels: Tensor


def draw_episode(labels: Tensor, scale: FewShotScale, shots: int, generator: torch.Generator) -> Episode:
    """`ways` of the classes in `labels`: `shots` photos of each to learn from, `queries` others to be asked about."""
    known = torch.unique(labels)
    classes = known[torch.randperm(len(known), generator=generator)[: scale.ways]]
    chosen = []
    for label in classes.tolist():
        own = (labels == label).nonzero()[:, 0]
        chosen.append(own[torch.randperm(len(own), generator=generator)[: shots + scale.queries]])
    photos = torch.stack(chosen)
    order = torch.arange(scale.ways)
    return Episode(
        support=photos[:, :shots].flatten(),
        support_labels=order.repeat_interleave(shots),
        queries=photos[:, shots:].flatten(),
        query_labels=order.repeat_interleave(scale.queries),
    )


def require_enough(path: str, scale: FewShotScale) -> None:
    """Raise DataError where `path` has too few classes, or photos of one, for a task; no photo is read."""
    require_enough_of_each(path, *look_into(path), scale)


def require_enough_of_each(path: str, infos: Sequence[ClassInfo], labels: Sequence[int], scale: FewShotScale) -> None:
    """The same of photos with these `labels` of `infos`: of those that were read, some may have been unreadable."""
    counts = Counter(labels)
    if len(counts) < scale.ways:
        raise DataError(
            f"{path} holds photos of {len(counts)} classes, expected {scale.ways} or more: a task has so many",
            "add folders of other classes",
        )
    shots = max(scale.shots)
    least = shots + scale.queries
    for label, count in sorted(counts.items()):
        if count < least:
            raise DataError(
                f"task '{shots}-shot': {path} holds {count} photos of {infos[label].name!r}, expected {least} or "
                f"more: {shots} to learn from and {scale.queries} to be asked about",
                "add photos, or leave the class out",
            )
