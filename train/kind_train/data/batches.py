"""Which photos a step sees, and how: a function of the options and the step's number alone, decided on the host.

That is what makes a resumed run have the losses of an uninterrupted one, and keeps a GPU from waiting for the decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from kind_train.config import TrainConfig

_ORDER, _STEP = 1, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """A batch before its photos are read; all tensors lie on the host.

    indices (batch,) into the photos; flipped (batch,) bool, the mirrored ones; classes (n,), the distinct classes that
    are trained; labels (batch,), a position in `classes`, or -1 where the label was dropped and no gate opens;
    is_null (batch,) bool, the photos that are trained with the null caption, where captions are read.
    """

    indices: Tensor
    flipped: Tensor
    classes: Tensor
    labels: Tensor
    is_null: Tensor


def draw_batch(labels: Tensor, config: TrainConfig, step: int, generator: torch.Generator) -> Batch:
    """The batch of `step` from photos with these `labels`; flips and dropped labels are drawn from `generator`."""
    indices = _draw_indices(len(labels), config, step)
    flipped = torch.zeros(len(indices), dtype=torch.bool)
    if config.flip:
        flipped = torch.rand(len(indices), generator=generator) < 0.5
    kept = torch.rand(len(indices), generator=generator) >= config.label_dropout
    classes, positions = torch.unique(labels[indices][kept], return_inverse=True)
    chosen = torch.full_like(indices, -1).masked_scatter(kept, positions)
    is_null = ~kept
    if config.text_embeddings is not None:  # any other run draws what it drew before there were captions
        is_null |= torch.rand(len(indices), generator=generator) < config.null_captions
    return Batch(indices=indices, flipped=flipped, classes=classes, labels=chosen, is_null=is_null)


def spread(rows: Tensor, most: int) -> Tensor:
    """The `rows` (n, ...), or `most` of them, evenly spread: photos in order of their names are alike side by side."""
    return rows if len(rows) <= most else rows[torch.arange(most) * len(rows) // most]


def step_generator(config: TrainConfig, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The random numbers of one step; step -1 is validation."""
    return torch.Generator(device).manual_seed(_mix(config.seed, step, _STEP))


def _draw_indices(num_photos: int, config: TrainConfig, step: int) -> Tensor:
    """Each epoch is a permutation of its own; a batch may span several."""
    first, end = step * config.batch_size, (step + 1) * config.batch_size
    parts = []
    for epoch in range(first // num_photos, (end - 1) // num_photos + 1):
        order = _epoch_order(num_photos, config.seed, epoch)
        start = epoch * num_photos
        parts.append(order[max(first - start, 0) : end - start])
    return torch.cat(parts)


@lru_cache(maxsize=2)  # a batch may span two epochs; drawing the order of a million photos takes longer than a step
def _epoch_order(num_photos: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(num_photos, generator=torch.Generator().manual_seed(_mix(seed, epoch, _ORDER)))


def _mix(seed: int, number: int, stream: int) -> int:
    return (seed * 1_000_003 + number + 1) * 4 + stream
