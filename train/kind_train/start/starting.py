"""What a run trains and from which weights: the shape fitted to the data, and the checkpoint that it starts from.

New classes and domains are learnt in KIND's own way, as in the section on domain shift: the learngene stays as it is,
fresh tailors train beside it. Nothing of the base is touched, so its own classes keep every bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import Tensor

from kind_core.autoencoder import AUTOENCODER_NAME, find_autoencoder, hash_autoencoder
from kind_core.checkpoint import Checkpoint, load_checkpoint
from kind_core.checkpoint_config import read_any_config
from kind_core.classes import resolve_class
from kind_core.config import DiTConfig, ModelConfig
from kind_core.dit import DivertedTransformer
from kind_core.errors import ConfigError
from kind_core.growth import require_new
from kind_core.tailors import TailorBank
from kind_core.text.checkpoint import TextCheckpoint, load_any_checkpoint
from kind_train.config import NEAREST, TrainConfig
from kind_train.data.batches import spread
from kind_train.data.captions.store import Forward, tell
from kind_train.data.latents import LatentSet
from kind_train.data.photo_set import TrainingSet
from kind_train.methods import Method
from kind_train.objective import Objective
from kind_train.start.distillation import enlarge, find_origin
from kind_train.start.shape import Shape, check_inputs

TERM = "with a "  # so begins what a provenance says of a term that a model was trained with
# What of a schedule decides what the weights mean; the rest is how pictures are drawn.
NOISE_FIELDS = ("noise_schedule", "prediction_type", "num_train_timesteps", "beta_start", "beta_end")

# `--init-from nearest`: each new class starts from the tailor of the base that denoises its photos best.
_NEAREST_PHOTOS = 64


def make_model_config(shape: Shape, photos: TrainingSet) -> ModelConfig:
    """The config of a shape for the classes of a data set; latents say by themselves how large they are."""
    if isinstance(photos, LatentSet):
        if shape.autoencoder not in (None, photos.autoencoder):
            message = f"the base was trained on latents of {shape.autoencoder}, the data are of {photos.autoencoder}"
            raise ConfigError(message, "cache the photos with the autoencoder of the base")
        dit = replace(shape.dit, sample_size=photos.input_shape[1])
        shape = replace(shape, dit=dit, autoencoder=photos.autoencoder)
    elif shape.autoencoder is not None:
        raise ConfigError("the base works on latents, the data are photos", "encode them first: kind-train cache")
    check_inputs(shape, photos.input_shape)
    if (shape.text is None) != (photos.captions is None):
        raise ConfigError("a model of captions and photos with captions belong together", "load the photos with them")
    return shape.with_classes(photos.classes)


def load_start(model: DivertedTransformer, config: ModelConfig, path: Path) -> None:
    """Load the learngene and the tailors of the classes that the checkpoint at `path` knows too, by id.

    A student takes them over from a network of smaller pictures, too, see `_enlarge_patches`. Raises ConfigError where
    the checkpoint is of another architecture or predicts something else.
    """
    source = load_checkpoint(path, with_decoder=False)
    dit = replace(source.config.dit, num_classes=config.dit.num_classes, tailor_ranks=None)
    if config.diffusion.distillation is not None:
        dit = enlarge(dit, config.dit.sample_size) or dit
    dit = replace(dit, end_blocks=config.dit.end_blocks)  # a student has the parameters of its teacher
    if dit.sample_size != config.dit.sample_size:
        raise ConfigError(
            f"{path} works on {source.config.dit.sample_size} x {source.config.dit.sample_size}, the data are "
            f"{config.dit.sample_size} x {config.dit.sample_size}",
            "cache or give the data at the size of the checkpoint",
        )
    for name in (one.name for one in fields(DiTConfig)):
        if getattr(dit, name) != getattr(config.dit, name):
            raise ConfigError(
                f"{path} has {name} {getattr(dit, name)}, the model that is trained {getattr(config.dit, name)}",
                "leave out --no-diversion: with all gates open a model is trained from nothing",
            )
    ours, theirs = config.diffusion, source.config.diffusion
    if any(getattr(ours, name) != getattr(theirs, name) for name in NOISE_FIELDS):
        raise ConfigError(
            f"{path} was trained with {theirs.prediction_type} on {theirs.noise_schedule} noise, "
            f"not with {ours.prediction_type} on {ours.noise_schedule}"
        )
    learngene = source.model.learngene_state()
    if dit.patch_size != source.config.dit.patch_size:
        learngene |= _enlarge_patches(learngene, source.config.dit, dit)
    model.load_state_dict(learngene, strict=False)
    known = {info.id: index for index, info in enumerate(source.config.classes)}
    with torch.no_grad():
        for index, info in enumerate(config.classes):
            if info.id in known:
                model.tailors.weight[index] = source.model.tailors.weight[known[info.id]]


def _enlarge_patches(learngene: Mapping[str, Tensor], before: DiTConfig, after: DiTConfig) -> dict[str, Tensor]:
    """What reads and draws patches, for larger ones: each number of a patch is now a square of several.

    Noise is as strong there as before once it is read: a square counts by the sum of its numbers over its side.
    """
    factor, of_pixels = after.patch_size // before.patch_size, (before.patch_size, before.patch_size, -1)
    read = learngene["patch_embedding.weight"]  # (hidden, channels, patch, patch)
    larger = {"patch_embedding.weight": read.repeat_interleave(factor, 2).repeat_interleave(factor, 3) / factor}
    for name in ("final.linear.weight", "final.linear.bias"):  # (patch * patch * channels, ...)
        drawn = torch.unflatten(learngene[name], 0, of_pixels)
        larger[name] = drawn.repeat_interleave(factor, 0).repeat_interleave(factor, 1).flatten(0, 2)
    return larger


def require_same_autoencoder(base: Path, photos: TrainingSet) -> None:
    """Raise ConfigError where latents were not encoded by the autoencoder of the base itself."""
    if isinstance(photos, LatentSet) and hash_autoencoder(find_autoencoder(base)) != photos.settings.autoencoder_sha256:
        raise ConfigError(
            f"the latents in {photos.folder} are of another autoencoder than that of {base}",
            f"encode the photos with --autoencoder {find_autoencoder(base)}",
        )


def check_origin(origin: str | Path | None, photos: TrainingSet) -> None:
    """The same for what weights are taken over from, if anything, where an autoencoder lies there."""
    if origin is not None and (Path(origin) / AUTOENCODER_NAME).is_dir():
        require_same_autoencoder(Path(origin), photos)


def list_earlier_terms(config: TrainConfig) -> list[str]:
    """The terms that the networks were trained with whose weights a run takes over, as their provenance says it."""
    origins = [find_origin(config, one) for one in (config.teacher, config.start_from, config.base) if one is not None]
    return [term for place in origins if place.exists() for term in read_terms(read_any_config(place))]


def read_terms(config: ModelConfig) -> list[str]:
    """What the provenance of a model says of the terms that it was trained with, other than of its own denoising."""
    return [part for part in config.provenance.training.split("; ") if part.startswith(TERM)]


def require_same_kind(train: TrainingSet, held_out: TrainingSet) -> None:
    """Raise ConfigError where held-out photos are not stored as those that are trained on."""
    kinds = [one.settings if isinstance(one, LatentSet) else None for one in (train, held_out)]
    if (kinds[0] is None) != (kinds[1] is None):
        message = "one of --data and --val-data is a cache of latents, the other holds photos"
        raise ConfigError(message, "cache both: kind-train cache")
    for name in ("autoencoder_sha256", "size"):
        of_train, of_held_out = (getattr(kind, name, None) for kind in kinds)
        if of_train != of_held_out:
            raise ConfigError(
                f"--val-data was cached with {name} {of_held_out}, --data with {of_train}", "cache both in the same way"
            )


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
