"""Smaller dense models built from a trained one, as table 1 compares them: fewer blocks, which are then trained.

`heur-lg` (https://arxiv.org/abs/2106.06788): the last quarter of the blocks is inherited, the others are random.
`auto-lg` (https://arxiv.org/abs/2305.02279): the first half is inherited, the others are random.
`laptop-diff` (https://arxiv.org/abs/2404.11098): blocks without which the prediction changes least are taken out.

Which blocks the other two inherit is a fixed choice here, in place of the original selection. What is outside the
blocks is inherited by all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kind_core.autoencoder import find_autoencoder
from kind_core.checkpoint import CHECKPOINT, Checkpoint, load_checkpoint, save_checkpoint
from kind_core.config import DiTConfig
from kind_core.dit import KindDiT
from kind_core.errors import ConfigError
from kind_core.files.staging import check_output
from kind_train.data.latents import load_latents_or_photos
from kind_train.data.photo_set import Tell, TrainingSet, ignore
from kind_train.device import pick_device
from kind_train.methods import open_method
from kind_train.methods.plain import InheritedBlocks
from kind_train.objective import Objective
from kind_train.start.requests import ShrinkRequest as ShrinkRequest
from kind_train.start.starting import read_terms

_PHOTOS, _BATCH = 256, 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Shrunk:
    """Which block of the source each block is, None where it is random; of laptop-diff also `changes`, J of each."""

    origins: tuple[int | None, ...]
    changes: tuple[float, ...] = ()


def shrink_checkpoint(request: ShrinkRequest, tell: Tell = ignore) -> Shrunk:
    """Write the smaller checkpoint; raises ConfigError for a source that cannot be made smaller so.

    `tell` gets the lines about photos that are not read.
    """
    check_output(request.output, CHECKPOINT, force=request.force)
    source = load_checkpoint(request.source, with_decoder=False)
    depth = request.require_depth(source.config.dit)
    changes: tuple[float, ...] = ()
    if request.construction == "laptop-diff":
        changes = measure_changes(source, _open_data(request, source.config.dit, tell), request.seed, request.device)
        strongest = sorted(range(source.config.dit.depth), key=lambda block: -changes[block])[:depth]
        origins: tuple[int | None, ...] = tuple(sorted(strongest))
    else:
        origins = _inherit(request.construction, source.config.dit.depth, depth)
    model = build(source.model, origins, request.seed)
    training = f"{request.construction} of {source.config.dit.depth} blocks to {depth}, not trained since"
    provenance = replace(source.config.provenance, training=training).with_training(*read_terms(source.config))
    config = replace(source.config, dit=model.config, provenance=provenance, training=None)  # it has to be trained yet
    autoencoder = None if config.autoencoder is None else find_autoencoder(request.source)
    save_checkpoint(request.output, config, model, autoencoder=autoencoder, force=request.force)
    return Shrunk(origins=origins, changes=changes)


@torch.no_grad()
def measure_changes(source: Checkpoint, photos: TrainingSet, seed: int, device: str) -> tuple[float, ...]:
    """J of every block: the mean squared difference of the prediction with and without it, on the same noisy photos."""
    place = pick_device(device)
    model, objective = source.model.to(place), Objective(source.config.diffusion, place)
    generator = torch.Generator(place).manual_seed(seed)
    known = {info.id: index for index, info in enumerate(source.config.classes)}
    labels_of = torch.tensor([known.get(info.id, -1) for info in photos.classes])
    order = torch.randperm(len(photos), generator=torch.Generator().manual_seed(seed))[:_PHOTOS]
    totals = [0.0] * len(model.blocks)
    for part in torch.split(order, _BATCH):
        stored = photos.read(part).to(place)

        def draw(count: int = len(part)) -> Tensor:
            return torch.randn((count, *photos.input_shape), generator=generator, device=place)

        timesteps, noise = objective.draw_timesteps(len(part), generator), draw()
        noisy = objective.add_noise(photos.to_input(stored, draw), noise, timesteps)
        labels = labels_of[photos.labels[part]].to(place)
        given = (noisy, objective.condition(timesteps), labels, labels)
        whole = model(*given)
        for index, block in enumerate(model.blocks):
            with _left_out(block):
                totals[index] += float((model(*given) - whole).square().mean()) * len(part)
    return tuple(total / len(order) for total in totals)


@torch.no_grad()
def build(source: KindDiT, origins: Sequence[int | None], seed: int) -> KindDiT:
    """The dense model whose blocks are those of `source` at `origins`, random ones where that is None."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = KindDiT(replace(source.config, depth=len(origins)))
    state = source.state_dict()
    kept = {name: value for name, value in state.items() if not name.startswith("blocks.")}
    for index, origin in enumerate(origins):
        prefix = f"blocks.{origin}."
        kept |= {
            f"blocks.{index}.{name.removeprefix(prefix)}": value
            for name, value in state.items()
            if origin is not None and name.startswith(prefix)
        }
    model.load_state_dict({name: value.cpu() for name, value in kept.items()}, strict=False)
    return model.eval()


@contextmanager
def _left_out(block: nn.Module) -> Iterator[None]:
    handle = block.register_forward_hook(lambda module, inputs, output: inputs[0])
    try:
        yield
    finally:
        handle.remove()


def _inherit(construction: str, whole: int, depth: int) -> tuple[int | None, ...]:
    """Those that the method of this name inherits, at the same end of the smaller model."""
    method = open_method(construction)
    assert isinstance(method, InheritedBlocks)
    found = [*method.inherited(whole)]
    inherited = found[:depth] if found[0] == 0 else found[-depth:]
    random: tuple[None, ...] = (None,) * (depth - len(inherited))
    return (*inherited, *random) if inherited[0] == 0 else (*random, *inherited)


def _open_data(request: ShrinkRequest, dit: DiTConfig, tell: Tell) -> TrainingSet:
    assert request.data is not None
    photos = load_latents_or_photos(request.data, dit.sample_size, tell=tell)
    expected = (dit.in_channels, dit.sample_size, dit.sample_size)
    if photos.input_shape != expected:
        raise ConfigError(
            f"{request.data} is of {photos.input_shape}, the model takes {expected}", "see kind-train cache"
        )
    return photos
