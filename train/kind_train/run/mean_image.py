"""The guess that knows no shapes: what a held-out loss is held against, to say whether a network has learned any."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kind_train.data.training_set import TrainingSet
from kind_train.objective import Objective

_MOST_PHOTOS, _BATCH = 1024, 256


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanImage:
    """The `mean` (channels, size, size) of photos as a model takes them, the `variance` of their pixels about it."""

    mean: Tensor
    variance: float

    def answer(self, objective: Objective, noisy: Tensor, conditions: Tensor) -> Tensor:
        """What a model would answer, told noisy images (batch, channels, size, size) and its `conditions` (batch,).

        The guess of least squared error that looks at one pixel at a time: between what is seen there and the mean, the
        nearer to the mean the more noise there is.
        """
        timesteps = objective.timesteps(conditions)
        alpha, sigma = (one[timesteps][:, None, None, None] for one in (objective.alpha, objective.sigma))
        trust = alpha * self.variance / (alpha.square() * self.variance + sigma.square())
        return objective.answer(self.mean + trust * (noisy - alpha * self.mean), noisy, timesteps)


def read_mean_image(photos: TrainingSet, device: torch.device) -> MeanImage:
    """Of 1024 photos at most, spread over the set."""
    generator = torch.Generator(device).manual_seed(0)
    chosen = torch.linspace(0, len(photos) - 1, min(len(photos), _MOST_PHOTOS)).long()
    total, squares = (torch.zeros(photos.input_shape, dtype=torch.float64, device=device) for _ in range(2))
    for part in torch.split(chosen, _BATCH):

        def draw(count: int = len(part)) -> Tensor:
            return torch.randn((count, *photos.input_shape), generator=generator, device=device)

        images = photos.to_input(photos.read(part).to(device), draw).double()
        total += images.sum(0)
        squares += images.square().sum(0)
    mean = total / len(chosen)
    variance = float((squares / len(chosen) - mean.square()).mean().clamp(min=1e-6))
    return MeanImage(mean=mean.float(), variance=variance)
