"""The terms of the training loss, each by its name: what a step minimises, and what held-out photos are measured by."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from kind_train.config import TrainConfig
from kind_train.data.captions.store import Forward as Forward
from kind_train.data.photo_set import TrainingSet
from kind_train.objective import Objective
from kind_train.run.terms.matching import NAMES as MATCHED
from kind_train.run.terms.matching import Matching
from kind_train.run.terms.perceptual import MAX_NOISE, FirstStages, PerceptualDistance
from kind_train.run.terms.relations import SHARE_OF_RUN, Relations

DENOISING = "loss"
PERCEPTUAL, REPA, PHOTOS = "perceptual term", "REPA term", "term of likeness to photos"
# The perceptual term sees this share of a batch: it costs more than it gains from the rest.
_PERCEPTUAL_SHARE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class _Told:
    """Images (batch, channels, size, size), their noise, timesteps (batch,), both as noisy images, and the answer."""

    images: Tensor
    noise: Tensor
    timesteps: Tensor
    noisy: Tensor
    output: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """What is random about the `share` of a batch that a process has: drawn for the batch as a whole, so that it is
    the same in any number of processes. `done` is the share of the run that lies behind."""

    generator: torch.Generator
    batch_size: int
    share: slice
    done: float = 1.0

    def noise(self, shape: tuple[int, ...]) -> Tensor:
        """Normal numbers for each of the share, (share, *shape)."""
        generator = self.generator
        return torch.randn((self.batch_size, *shape), generator=generator, device=generator.device)[self.share]


class Scoring(Protocol):
    """What a batch of photos costs a model, each term by its name."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def train(
        self, forward: Forward, stored: Tensor, labels: Tensor, draw: Draw, rows: Tensor | None, *, classes: Tensor
    ) -> Tensor:
        """The mean over the photos of every term of `names`, weighted: their sum is the loss. Else as `measure`.

        `rows` are the tailors of `classes`, in which labels count.
        """

    def measure(self, forward: Forward, stored: Tensor, labels: Tensor, draw: Draw) -> Tensor:
        """The loss of each photo of `stored`, which are those of the draw's share."""


def classifier_terms(config: TrainConfig) -> dict[str, float]:
    """The weights of the terms that a classifier has a say in, by their names, of those that a run has."""
    weights = {PERCEPTUAL: config.perceptual, REPA: config.repa, PHOTOS: config.match_photos}
    return {name: weight for name, weight in weights.items() if weight}


class Losses:
    """What a model that denoises is trained by; `autocast` makes the context that it and its judges run in.

    It learns from how alike the parts of photos are, and from a teacher, where `relations` and `matching` are set.
    """

    def __init__(
        self,
        config: TrainConfig,
        photos: TrainingSet,
        objective: Objective,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.objective = objective
        self._weights = classifier_terms(config)
        self.stages = FirstStages(device) if self._weights else None
        self._distance = PerceptualDistance(self.stages) if config.perceptual and self.stages is not None else None
        self.relations: Relations | None = None
        self.matching: Matching | None = None
        self._photos, self._autocast = photos, autocast

    @property
    def names(self) -> tuple[str, ...]:
        return (DENOISING, *self._weights, *(MATCHED if self.matching is not None else ()))

    def train(
        self, forward: Forward, stored: Tensor, labels: Tensor, draw: Draw, rows: Tensor | None, *, classes: Tensor
    ) -> Tensor:
        """See `Scoring`: the denoising loss, and the terms by a classifier and by a teacher where there are some."""
        timesteps = self.objective.draw_timesteps(draw.batch_size, draw.generator)[draw.share]
        told = self._predict(forward, stored, labels, draw, rows, timesteps)
        terms = [self._errors(told).mean()]
        if self._distance is not None:
            terms.append(self._weights[PERCEPTUAL] * self._look(self._distance, told))
        if self.relations is not None:
            terms.append(self._weights[REPA] * self._relate(self.relations, told, draw.done))
        if self.matching is not None:
            condition = self.objective.condition(told.timesteps)
            with self._autocast():
                terms += self.matching.terms(told.output, told.noisy, condition, labels, classes)
        return torch.stack(terms)

    def measure(self, forward: Forward, stored: Tensor, labels: Tensor, draw: Draw) -> Tensor:
        """The denoising loss of each photo.

        Its timesteps are the usual ones, so that a run that goes on with others is held against what it was before.
        """
        timesteps = self.objective.draw_timesteps(draw.batch_size, draw.generator, is_usual=True)[draw.share]
        return self._errors(self._predict(forward, stored, labels, draw, None, timesteps))

    def _predict(
        self, forward: Forward, stored: Tensor, labels: Tensor, draw: Draw, rows: Tensor | None, timesteps: Tensor
    ) -> _Told:
        """Images with the noise of as many timesteps, and what the model says of them."""
        shape = self._photos.input_shape
        noise = draw.noise(shape)
        images = self._photos.to_input(stored, lambda: draw.noise(shape))
        noisy = self.objective.add_noise(images, noise, timesteps)
        with self._autocast():
            output = forward(noisy, self.objective.condition(timesteps), labels, labels, rows)
        return _Told(images=images, noise=noise, timesteps=timesteps, noisy=noisy, output=output)

    def _errors(self, told: _Told) -> Tensor:
        return self.objective.loss(told.output, told.images, told.noise, told.timesteps)

    def _look(self, distance: PerceptualDistance, told: _Told) -> Tensor:
        """The mean perceptual distance where there is little noise, from the first part of the batch."""
        part = slice(0, max(1, round(len(told.images) * _PERCEPTUAL_SHARE)))
        timesteps = told.timesteps[part]
        pictures = self.objective.predicted_image(told.output[part], told.noisy[part], timesteps)
        with self._autocast():
            distances = distance(pictures, told.images[part])
        return (distances * (self.objective.share_of_noise(timesteps) < MAX_NOISE)).mean()

    def _relate(self, relations: Relations, told: _Told, done: float) -> Tensor:
        """The mean difference in how alike the parts are, early in the run; nothing later."""
        if done >= SHARE_OF_RUN:
            return told.images.new_zeros(())
        with self._autocast():
            return relations(told.images).mean()
