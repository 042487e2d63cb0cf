"""What draws the pictures of an evaluation: the eager model of a checkpoint, or a bundle in its own runtime.

Both start picture i of a seed from the same noise, so a bundle's figures differ by what its export cost, not by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from kind_core.checkpoint import Checkpoint, load_checkpoint, read_config
from kind_core.classes import ClassInfo, resolve_classes
from kind_core.config import ModelConfig
from kind_core.errors import ConfigError
from kind_core.noise import picture_seed, start_noise
from kind_core.samplers import ALL_STEPS, Sampling
from kind_core.sampling import sample_latents, to_pixels
from kind_core.schedule import choose_sampling
from kind_train.device import pick_device
from kind_train.evaluation import DrawSettings as DrawSettings

_BATCH = 50
NULL = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """What was drawn with, for the report; `training` is how the checkpoint's provenance says that it was trained.

    `runtime`: that of a bundle, with its precision.
    """

    source: str
    sha256: str
    sampling: Sampling
    training: str = ""
    runtime: str = ""


class Drawer(Protocol):
    """Draws pictures of `classes`, `size` pixels a side. `can_mix`: label and gate may differ, or be `NULL`."""

    classes: tuple[ClassInfo, ...]
    size: int
    can_mix: bool
    drawing: Drawing

    def draw(self, label: int, gate: int, count: int) -> np.ndarray:
        """uint8 (count, size, size, 3)."""


class CheckpointDrawer:
    """The eager model under the diffusers scheduler."""

    can_mix = True

    def __init__(self, path: Path, classes: Sequence[str], settings: DrawSettings) -> None:
        config = read_config(path)
        self.checkpoint = load_checkpoint(path, _choose(classes, config.classes))
        self.checkpoint.model.to(pick_device(settings.device))
        self.settings = settings
        self.classes = self.checkpoint.config.classes
        self.size, diffusion = picture_size(config), config.diffusion
        self.drawing = Drawing(
            source=str(path),
            sha256=self.checkpoint.sha256,
            sampling=choose_sampling(
                diffusion,
                steps=settings.steps,
                guidance_scale=settings.guidance,
                guidance_interval=settings.guidance_interval,
            ),
            training=config.provenance.training,
        )

    def draw(self, label: int, gate: int, count: int) -> np.ndarray:
        seed, sampling = self.settings.seed, self.drawing.sampling
        return generate_pictures(self.checkpoint, label, gate, count, seed=seed, sampling=sampling)


class BundleDrawer:
    """An exported bundle, run by `runtime`; sampler, steps and interval are inside, guidance may be given."""

    can_mix = False

    def __init__(self, path: Path, runtime: str | None, classes: Sequence[str], settings: DrawSettings) -> None:
        from kind_core.files.hashing import hash_file
        from kind_runtimes.bundle import open_bundle
        from kind_runtimes.engine_rows import holds_code
        from kind_runtimes.engines.runtime import choose_runtime
        from kind_runtimes.generator import open_generator
        from kind_runtimes.golden import check_golden
        from kind_runtimes.packs import read_pack

        if settings.steps is not None or settings.guidance_interval != ALL_STEPS:
            raise ConfigError("steps and guidance interval are inside a bundle", "export it with the ones you want")
        manifest = open_bundle(path, run_code=holds_code(runtime)).manifest
        chosen = _choose(classes, manifest.classes)
        name = choose_runtime(manifest.targets) if runtime is None else manifest.target(runtime).target
        generator = open_generator(path, manifest, name)
        self._drawers = [(generator, index) for index in chosen]
        if manifest.packs:
            files = [path / manifest.packs[index].file for index in chosen]
            self._drawers = [(generator.with_pack(read_pack(file)), 0) for file in files]
        for number, (drawer, _) in zip(chosen, self._drawers, strict=True):
            check_golden(path, manifest, drawer, name, number)
        self.settings = settings
        self.classes = tuple(manifest.classes[index] for index in chosen)
        decode = manifest.target(name).programs.get("decode")
        if decode is None:
            raise ConfigError(f"{path} has no decode program: it makes latents, not pictures")
        self.size = decode.outputs[0].shape[-1]
        sampling = manifest.sampling
        if settings.guidance is not None:
            manifest.require_guidance()
            sampling = replace(sampling, guidance_scale=settings.guidance)
        runs_as = f"{name}, {manifest.target(name).precision}"
        self.drawing = Drawing(
            source=f"{path} in {runs_as}", runtime=runs_as, sha256=hash_file(path / "manifest.json"), sampling=sampling
        )

    def draw(self, label: int, gate: int, count: int) -> np.ndarray:
        assert label == gate, "a bundle has its tailors merged"
        generator, index = self._drawers[label]
        seeds = [picture_seed(self.settings.seed, i) for i in range(count)]
        return np.stack([generator.picture(index, seed, self.settings.guidance) for seed in seeds])


def picture_size(config: ModelConfig) -> int:
    """Pixels a side of what a model draws."""
    return config.dit.sample_size * (1 if config.autoencoder is None else config.autoencoder.downscale)


def _choose(asked: Sequence[str], known: Sequence[ClassInfo]) -> list[int]:
    return [found.index for found in resolve_classes(asked, known)] or list(range(len(known)))


def generate_pictures(
    checkpoint: Checkpoint, label: int, gate: int, count: int, *, seed: int, sampling: Sampling
) -> np.ndarray:
    """Pictures of one label under one gate, uint8 (count, size, size, 3); picture i starts from noise `seed + i`."""
    config = checkpoint.config
    diffusion = config.diffusion
    shape = (config.dit.in_channels, config.dit.sample_size, config.dit.sample_size)
    noise = torch.from_numpy(np.stack([start_noise(picture_seed(seed, i), shape) for i in range(count)]))
    device = checkpoint.model.null_label_embedding.device
    if checkpoint.decoder is not None:
        checkpoint.decoder.to(device)
    parts: list[np.ndarray] = []
    for part in torch.split(noise, _BATCH):
        labels, gates = (torch.full((len(part),), one, device=device) for one in (label, gate))
        latents = sample_latents(checkpoint.model, diffusion, part.to(device), labels, gates, sampling)
        parts.append(to_pixels(checkpoint.decode(latents).cpu()))
    return np.concatenate(parts)
