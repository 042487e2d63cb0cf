"""Which losses a run has, and how a model scores by them on photos it was not trained on.

A held-out loss is held against that of a guess that knows no shapes, to say whether a network has learned any.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from kind_core.config import ModelConfig
from kind_core.dit import DivertedTransformer
from kind_train.class_guidance import scale_of_each
from kind_train.config import TrainConfig
from kind_train.data.batches import step_generator
from kind_train.data.captions.store import tell
from kind_train.data.photo_set import TrainingSet
from kind_train.evaluate.small_classifier import SmallClassifier
from kind_train.objective import Objective
from kind_train.run.distilling import DistillationLosses
from kind_train.run.losses import Draw, Forward, Losses, Scoring
from kind_train.run.processes import Processes
from kind_train.run.step import autocast
from kind_train.run.terms.energy import ClassifierLevels, Levels, Lite0Levels, PhotoEnergy
from kind_train.run.terms.matching import Matching
from kind_train.run.terms.relations import Relations

_BATCH = 256
_IMAGES = 1024
_MOST_PHOTOS = 1024  # of which the mean is known


def open_losses(
    config: TrainConfig, model: ModelConfig, photos: TrainingSet, objective: Objective, device: torch.device
) -> Scoring:
    """Of the steps of a teacher where there is one, else of noise; `photos` are only asked how they are read."""
    context = partial(autocast, config, device)
    if config.teacher is None:
        return Losses(config, photos, objective, device, context)
    return DistillationLosses(config, model, photos, device, context)


def complete_losses(
    losses: Scoring,
    config: TrainConfig,
    model: DivertedTransformer,
    model_config: ModelConfig,
    photos: TrainingSet,
    device: torch.device,
) -> None:
    """Let losses learn, where it is asked for, from what goes on inside `model` and from the `photos` themselves."""
    if isinstance(losses, DistillationLosses):
        distillation = model_config.diffusion.distillation
        if config.match_photos and distillation is not None:
            look: list[Levels] = [Lite0Levels(device, config.match_size)]
            if config.match_classifier is not None:
                look.append(ClassifierLevels(SmallClassifier(Path(config.match_classifier), device=str(device)).stages))
            scales = scale_of_each(config.class_guidance, photos.classes, distillation.guidance_scale)
            losses.energy = PhotoEnergy(photos, device, scales, mirror=config.flip, look=look)
    elif isinstance(losses, Losses):
        if config.repa and losses.stages is not None:
            losses.relations = Relations(model, losses.stages)
        if config.match is not None:
            losses.matching = Matching(Path(config.match), config.match_blocks, model, model_config)


@torch.no_grad()
def measure_held_out(
    model: Forward,
    losses: Scoring,
    photos: TrainingSet,
    config: TrainConfig,
    device: torch.device,
    processes: Processes,
) -> float:
    """The mean loss of `photos`: of the same ones, with the same noise and timesteps, at every validation.

    The processes take its batches in turns.
    """
    generator = step_generator(config, -1, device)
    order = torch.randperm(len(photos), generator=generator, device=device)[:_IMAGES].cpu()
    total = torch.zeros((), dtype=torch.float64, device=device)
    for number, part in enumerate(torch.split(order, _BATCH)):
        is_mine = number % processes.count == processes.rank
        share = slice(None) if is_mine else slice(0)
        stored, labels = (t[share].to(device) for t in (photos.read(part), photos.labels[part]))
        # what the others measure is drawn here all the same, but the model need not see it
        words = None if photos.captions is None else photos.captions.read(part[share])
        forward: Forward = tell(model, words, device) if is_mine else lambda latents, *_: latents
        draw = Draw(generator=generator, batch_size=len(part), share=share)
        total += losses.measure(forward, stored, labels, draw).double().sum()
    return float(processes.total(total)) / len(order)


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
