"""Tasks of a few photos a class, drawn from a data set by number: the same ones for every method, which learns them.

Queries are answered with the network that all open tailors come to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kind_core.classes import ClassInfo
from kind_core.errors import DataError
from kind_train.benchmark.few_shot.vit import KindViT, merge, start_task
from kind_train.benchmark.suite import FewShotArm, FewShotScale
from kind_train.data.photo_set import PhotoSet
from kind_train.evaluate.small_classifier import move_photos


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


def require_enough(path: str, infos: Sequence[ClassInfo], labels: Sequence[int], scale: FewShotScale) -> None:
    """Raise DataError where `path` has too few classes, or photos of one, for a task, by the `labels` of `infos`."""
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


def adapt(
    base: KindViT, photos: PhotoSet, episode: Episode, arm: FewShotArm, scale: FewShotScale, generator: torch.Generator
) -> KindViT:
    """A network for the classes of `episode`, whose directions start at the mean features of their photos.

    Tailors are trained behind the gate of each photo's own class and the learngene is not; `everything` trains all.
    """
    task = start_task(base, scale.ways, scale.task_rank)
    device = task.tailors.weight.device
    labels = episode.support_labels.to(device)
    set_directions(task, photos, episode)
    if arm.train == "nothing":
        return task.eval()
    trained = [task.tailors.weight] if arm.train == "tailors" else list(task.parameters())
    optimizer = torch.optim.AdamW(trained, arm.learning_rate, weight_decay=0.0)
    places = torch.arange(len(labels)).repeat(-(-scale.task_batch // len(labels)))
    for _ in range(scale.steps):
        mirrored = torch.rand(len(places), generator=generator) < 0.5
        images = photos.to_unit(episode.support[places], mirrored)
        own = labels[places.to(device)]
        logits = task(move_photos(images, generator).to(device), task.opened(len(places)), own)
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(logits, own), inputs=trained)
        optimizer.step()
    return task.eval()


@torch.no_grad()
def set_directions(task: KindViT, photos: PhotoSet, episode: Episode) -> None:
    """Let the label embedding of each class be the mean of what the learngene sees in its photos."""
    device = task.tailors.weight.device
    seen = F.normalize(task.features(photos.to_unit(episode.support).to(device)), dim=-1)
    labels = episode.support_labels.to(device)
    means = torch.stack([seen[labels == label].mean(0) for label in range(task.config.num_classes)])
    task.tailors.label_embeddings().copy_(means)


@torch.no_grad()
def measure_accuracy(task: KindViT, photos: PhotoSet, episode: Episode) -> float:
    """The share of the queries that are answered right."""
    merged = merge(task)
    device = merged.tailors.weight.device
    answers = merged(photos.to_unit(episode.queries).to(device)).argmax(1).cpu()
    return float((answers == episode.query_labels).double().mean())
