"""Which photos a step sees, and how: a function of the options and the step's number alone, decided on the host.

That is what makes a resumed run have the losses of an uninterrupted one, and keeps a GPU from waiting for the decision;
the photos of the next steps are read while one is trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from kind_train.config import TrainConfig
from kind_train.data.captions.store import Words
from kind_train.data.training_set import TrainingSet

_ORDER, _STEP = 1, 2
_AHEAD = 3  # steps whose photos are read


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Feed:
    """A whole batch, the stored photos of one process's share of it, and the random numbers that come after it.

    The generator is the host's. photos are as the data set stores them, in pinned memory where a GPU takes them;
    words those of their captions, where they have some.
    """

    batch: Batch
    photos: Tensor
    generator: torch.Generator
    words: Words | None


class Feeder:
    """Gives the feed of each step, in any order; on a GPU a thread reads ahead of it."""

    def __init__(self, photos: TrainingSet, config: TrainConfig, share: slice, device: torch.device) -> None:
        self.photos = photos
        self._config, self._share = config, share
        self._is_pinned = device.type == "cuda"
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="photos") if self._is_pinned else None
        self._coming: dict[int, Future[Feed]] = {}

    def take(self, step: int) -> Feed:
        """The feed of `step`."""
        if self._reader is None:
            return self._read(step)
        read: Callable[[int], Feed] = self._read
        for ahead in range(step, min(step + _AHEAD, self._config.num_steps)):
            if ahead not in self._coming:
                self._coming[ahead] = self._reader.submit(read, ahead)
        return self._coming.pop(step).result() if step in self._coming else self._read(step)

    def _read(self, step: int) -> Feed:
        generator = step_generator(self._config, step)
        batch = draw_batch(self.photos.labels, self._config, step, generator)
        indices, captions = batch.indices[self._share], self.photos.captions
        photos = self.photos.read(indices, batch.flipped[self._share])
        words = None if captions is None else captions.read(indices, batch.is_null[self._share])
        photos = photos.pin_memory() if self._is_pinned else photos
        return Feed(batch=batch, photos=photos, generator=generator, words=words)
