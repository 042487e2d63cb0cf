"""Batches with their photos: on a GPU the next ones are read while the current one is trained on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from kind_train.config import TrainConfig
from kind_train.data.batches import Batch, draw_batch, step_generator
from kind_train.data.captions.store import Words
from kind_train.data.photo_set import TrainingSet

_AHEAD = 3


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
