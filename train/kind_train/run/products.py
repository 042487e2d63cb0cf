"""What a run leaves for others: checkpoints and grids of pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from kind_core.checkpoint import save_checkpoint
from kind_core.checkpoint_config import read_any_config
from kind_core.config import ModelConfig, TrainingRecord
from kind_core.dit import DivertedTransformer
from kind_core.errors import CheckpointError
from kind_core.files.staging import PART, staged
from kind_core.growth import save_grown
from kind_core.pictures import make_class_grid
from kind_core.sampling import sample_latents, to_images, to_pixels
from kind_core.schedule import choose_sampling
from kind_train.config import TrainConfig
from kind_train.data.captions.store import Captions, tell_guided
from kind_train.data.latents import LatentSet
from kind_train.data.photo_set import TrainingSet
from kind_train.plots import draw_losses
from kind_train.run.metrics import read_metrics
from kind_train.run.run_folder import LAST_NAME, LOSSES_NAME, SAMPLES_NAME

_MAX_ROWS = 12
_HEIGHT = 96  # pixels of a picture at least
# Latents to images in [0, 1].
Decode = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Products:
    """What models of a run are written with; `base` is the checkpoint whose own files stay beside new classes."""

    config: TrainConfig
    model_config: ModelConfig
    photos: TrainingSet
    base: Path | None

    def save_checkpoint(self, name: str, model: DivertedTransformer, training: TrainingRecord) -> None:
        """A checkpoint of the run's classes; where a base stays as it is beside them, of its own and the run's."""
        place = Path(self.config.output) / name
        if self.base is not None:
            save_grown(place, self.base, replace(self.model_config, training=training), model, force=True)
            return
        autoencoder = self.photos.autoencoder_folder if isinstance(self.photos, LatentSet) else None
        config = replace(self.model_config, dit=model.config, training=training)
        save_checkpoint(place, config, model, autoencoder=autoencoder, force=True)

    def has_last(self, images: int) -> bool:
        """Whether `last` is the model after so many training images."""
        try:
            training = read_any_config(Path(self.config.output) / LAST_NAME).training
        except CheckpointError:
            return False
        return training is None or training.images == images  # one made before this was recorded does not tell

    def has_samples(self, images: int) -> bool:
        """Whether pictures were drawn after so many training images."""
        return self._samples_file(images).exists()

    def draw_samples(self, model: DivertedTransformer, images: int, device: torch.device) -> None:
        """The grid of pictures after so many training images, and the losses up to there."""
        output, file = Path(self.config.output), self._samples_file(images)
        decode: Decode = to_images
        if isinstance(self.photos, LatentSet):
            decode = self.photos.decoder(device)
        captions = self.photos.captions
        _save_sample_grid(model, self.model_config, file, decode, captions, seed=self.config.seed)
        draw_losses([record for _, record in read_metrics(output)], output / LOSSES_NAME)

    def _samples_file(self, images: int) -> Path:
        return Path(self.config.output) / SAMPLES_NAME / f"{images:09d}.png"


@torch.no_grad()
def _save_sample_grid(
    model: DivertedTransformer,
    config: ModelConfig,
    file: Path,
    decode: Decode,
    captions: Captions | None,
    *,
    columns: int = 8,
    seed: int = 0,
) -> None:
    """Write a PNG of `columns` samples for each of the first classes, with the checkpoint's own sampling defaults.

    Each row stands under its class's name, pictures enlarged for looking at; of a model of captions by captions of it.
    """
    rows = min(config.dit.num_classes, _MAX_ROWS)
    device = model.tailors.weight.device
    shape = (rows * columns, config.dit.in_channels, config.dit.sample_size, config.dit.sample_size)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)
    labels = torch.arange(rows, device=device).repeat_interleave(columns)
    diffusion = config.diffusion
    words = None if captions is None else captions.read_examples(labels.tolist())
    forward = tell_guided(model, words, device)
    latents = sample_latents(forward, diffusion, noise, labels, labels, choose_sampling(diffusion))
    pictures = list(to_pixels(decode(latents)))
    named = [(config.classes[row], pictures[row * columns : (row + 1) * columns]) for row in range(rows)]
    with staged(file, PART, force=True) as temporary:
        make_class_grid(named, _HEIGHT).save(temporary, format="PNG")
