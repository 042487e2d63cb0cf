"""Adaptation to new classes or another domain: how a method starts from a base.

KIND's own way, section on domain shift: the learngene stays as it is, fresh tailors train beside it. Nothing of the
base is touched, so its own classes keep every bit.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from kind_core.checkpoint import Checkpoint
from kind_core.checkpoint_config import read_any_config
from kind_core.classes import resolve_class
from kind_core.config import ModelConfig
from kind_core.dit import DivertedTransformer
from kind_core.errors import ConfigError
from kind_core.growth import require_new
from kind_core.tailors import TailorBank
from kind_core.text.checkpoint import TextCheckpoint, load_any_checkpoint
from kind_train.config import NEAREST, TrainConfig
from kind_train.data.batches import spread
from kind_train.data.captions.store import Forward, tell
from kind_train.data.photo_set import TrainingSet
from kind_train.methods import Method
from kind_train.objective import Objective
from kind_train.start.starting import require_same_autoencoder

# `--init-from nearest`: each new class starts from the tailor of the base that denoises its photos best.
_NEAREST_PHOTOS = 64


def prepare_adaptation(
    model: DivertedTransformer,
    config: ModelConfig,
    base: Path,
    method: Method,
    options: TrainConfig,
    photos: TrainingSet,
) -> None:
    """Let `method` prepare `model`; raises ConfigError where data, base and options do not go together."""
    require_same_autoencoder(base, photos)
    own = read_any_config(base)
    if method.keeps_base:
        require_new(own, config.classes)
    if options.shard and not method.can_shard:
        raise ConfigError(f"shard is True, but method {method.name!r} cannot be sharded", "leave out --shard")
    method.prepare(model, method.plan(own.dit, options.tailor_rank))


def start_adaptation(
    model: DivertedTransformer,
    base: Path,
    method: Method,
    init_from: str | None,
    photos: TrainingSet,
    objective: Objective,
    seed: int,
) -> None:
    """Give `model` what `method` inherits of `base`, and tailors the weights of `init_from`; else they stay random."""
    chosen = _choose_classes(base, init_from)
    checkpoint = load_any_checkpoint(base, chosen, with_decoder=False)
    method.load(model, checkpoint.model.to(model.tailors.weight.device), seed)
    if init_from is None:
        return
    starts = [0] * len(photos.classes)
    if init_from == NEAREST:
        starts = find_nearest_classes(checkpoint, photos, objective, seed)
    for index, start in enumerate(starts):
        copy_tailor(model.tailors, index, checkpoint.model.tailors, start)


def find_nearest_classes(
    checkpoint: Checkpoint | TextCheckpoint, photos: TrainingSet, objective: Objective, seed: int
) -> list[int]:
    """For each class of `photos`, the class of the checkpoint under which its photos have the lowest loss."""
    nearest = []
    for label in range(len(photos.classes)):
        losses = _losses_by_class(checkpoint, photos, label, objective, seed)
        nearest.append(losses.index(min(losses)))
    return nearest


@torch.no_grad()
def _losses_by_class(
    checkpoint: Checkpoint | TextCheckpoint, photos: TrainingSet, label: int, objective: Objective, seed: int
) -> list[float]:
    """The loss of some photos of `label`, with the same noise, under each class of the checkpoint."""
    dit, device = checkpoint.config.dit, objective.alpha.device
    model: Forward = checkpoint.model.to(device)
    chosen = spread((photos.labels == label).nonzero()[:, 0], _NEAREST_PHOTOS)
    stored = photos.read(chosen).to(device)
    words = None if photos.captions is None else photos.captions.read(chosen)
    model = tell(model, words, device)
    generator = torch.Generator(device).manual_seed(seed)

    def draw() -> Tensor:
        shape = (len(stored), dit.in_channels, dit.sample_size, dit.sample_size)
        return torch.randn(shape, generator=generator, device=device)

    timesteps = objective.draw_timesteps(len(stored), generator)
    noise, images = draw(), photos.to_input(stored, draw)
    noisy, condition = objective.add_noise(images, noise, timesteps), objective.condition(timesteps)
    losses = []
    for candidate in range(dit.num_classes):
        choice = torch.full((len(stored),), candidate, device=device)
        output = model(noisy, condition, choice, choice)
        losses.append(float(objective.loss(output, images, noise, timesteps).mean()))
    return losses


@torch.no_grad()
def copy_tailor(bank: TailorBank, index: int, source: TailorBank, start: int) -> None:
    """Start class `index` from class `start` of another bank; components beyond its rank begin with s = 0.

    They change nothing at first and can learn, their U and V being random.
    """
    rank, source_rank = bank.config.ranks[index], source.config.ranks[start]
    if rank < source_rank:
        raise ConfigError(f"tailor_rank is {rank}, expected {source_rank} or more to start from a tailor of that rank")
    row, source_row = bank.weight[index], source.weight[start].to(bank.weight.device)
    bank.label_embeddings()[index] = source.label_embeddings()[start]
    for name, _, _ in bank.config.matrix_names():
        for factor, given in zip(bank.factors(row, name), source.factors(source_row, name), strict=True):
            factor[:source_rank] = given[:source_rank]
        bank.factors(row, name)[1][source_rank:] = 0


def _choose_classes(base: Path, init_from: str | None) -> list[int]:
    """The classes of the base that have to be read; a model without any class cannot be built."""
    known = read_any_config(base).classes
    if init_from == NEAREST:
        return list(range(len(known)))
    return [0 if init_from is None else resolve_class(init_from, known).index]
