"""Which losses a run has, and how a model scores by them on photos it was not trained on."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from kind_core.config import ModelConfig
from kind_core.dit import DivertedTransformer
from kind_train.class_guidance import scale_of_each
from kind_train.config import TrainConfig
from kind_train.data.batches import step_generator
from kind_train.data.captions.told import tell
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


def open_objective(config: TrainConfig, model: ModelConfig, device: torch.device) -> Objective:
    """What a model is trained to answer, at the times that the options ask for."""
    mean, deviation = config.timestep_mean, config.timestep_std
    return Objective(model.diffusion, device, timestep_mean=mean, timestep_std=deviation)


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
            losses.compare(PhotoEnergy(photos, device, scales, mirror=config.flip, look=look))
        return
    if not isinstance(losses, Losses):
        return
    if config.repa and losses.stages is not None:
        losses.align(Relations(model, losses.stages))
    if config.match is not None:
        losses.match(Matching(Path(config.match), config.match_blocks, model, model_config))


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
        forward = tell(model, words, device) if is_mine else _return_first
        draw = Draw(generator=generator, batch_size=len(part), share=share)
        total += losses.measure(forward, stored, labels, draw).double().sum()
    return float(processes.total(total)) / len(order)


def _return_first(latents: Tensor, *_: object) -> Tensor:
    return latents
