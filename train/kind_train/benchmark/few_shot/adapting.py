"""Learns a task from its few photos, and answers its queries with the network that all open tailors come to."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from kind_train.benchmark.few_shot.episodes import Episode
from kind_train.benchmark.few_shot.suite import FewShotArm, FewShotScale
from kind_train.benchmark.few_shot.vit import KindViT, merge, start_task
from kind_train.data.photo_set import PhotoSet
from kind_train.evaluate.small_classifier import move_photos


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
