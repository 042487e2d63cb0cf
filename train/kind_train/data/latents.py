"""Latents of photos, encoded once by `kind-train cache`: how training reads them.

Each latent is stored once, whatever the number of photos with its pixels; `index.safetensors` says for each photo which
latent is its own and which class. An AutoencoderKL's latents are kept as mean and deviation, so that a step draws from
the distribution, as the paper's do; with mirror images, each is encoded both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kind_core.autoencoder import AUTOENCODER_NAME, load_decoder, read_moments
from kind_core.class_ids import choose_classes
from kind_core.classes import ClassInfo
from kind_core.config import AutoencoderConfig
from kind_core.errors import ConfigError, DataError
from kind_core.sampling import to_images
from kind_train.data import cache_files as files
from kind_train.data.cache_files import is_cache as is_cache
from kind_train.data.captions.store import Captions, WordStore
from kind_train.data.photo_set import Draw, Tell, TrainingSet, describe_photo, ignore, load_photos


@dataclass(frozen=True, kw_only=True)
class LatentSet:
    """A cache as a training set. `rows` (n,) long, the latent of each photo; shards are mapped, not read.

    `texts` are the captions that a cache keeps, `captions` the same with their words.
    """

    folder: Path
    settings: files.CacheSettings
    rows: Tensor
    labels: Tensor
    classes: tuple[ClassInfo, ...]
    skipped: tuple[str, ...] = field(default=())
    texts: tuple[str, ...] = ()
    captions: Captions | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def autoencoder(self) -> AutoencoderConfig:
        return self.settings.autoencoder

    @property
    def autoencoder_folder(self) -> Path:
        return self.folder / AUTOENCODER_NAME

    def decoder(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """Latents on `device` to images in [0, 1]."""
        module = load_decoder(self.autoencoder_folder, self.autoencoder, self.input_shape[0]).to(device)
        return lambda latents: torch.cat([to_images(module(one)) for one in torch.split(latents, 1)])

    @cached_property
    def _shards(self) -> list[np.ndarray]:
        return files.open_shards(self.folder, self.settings)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, size, size) of a latent."""
        _, _, channels, height, width = self._shards[0].shape
        return channels // (1 if self.autoencoder.kind == "AutoencoderTiny" else 2), height, width

    def read(self, indices: Tensor, flipped: Tensor | None = None) -> Tensor:
        """fp16, as encoded: (batch, channels or twice as many, size, size)."""
        mirrored = torch.zeros(len(indices), dtype=torch.bool) if flipped is None else flipped
        if bool(mirrored.any()) and not self.settings.flip:
            raise ConfigError(f"{self.folder} holds no mirror images", "train with --no-flip, or cache with --flip")
        size = self.settings.shard_rows
        chosen = zip(self.rows[indices].tolist(), mirrored.tolist(), strict=True)
        values = [self._shards[row // size][row % size, int(flip)] for row, flip in chosen]
        return torch.from_numpy(np.stack(values) if values else np.zeros((0, *self._shards[0].shape[2:]), np.float16))

    def to_input(self, stored: Tensor, draw: Draw) -> Tensor:
        """Scaled latents, drawn from their distribution where the autoencoder has one."""
        noise = draw() if self.autoencoder.kind == "AutoencoderKL" else None
        return read_moments(stored.float(), self.autoencoder, noise)

    def select(self, indices: Tensor) -> LatentSet:
        """The photos at `indices`."""
        texts = tuple(self.texts[index] for index in indices.tolist()) if self.texts else ()
        captions = self.captions and self.captions.select(indices)
        return replace(self, rows=self.rows[indices], labels=self.labels[indices], texts=texts, captions=captions)

    def require_texts(self) -> None:
        """Raise DataError where the cache keeps no captions."""
        if not self.texts:
            raise DataError(f"the cache {self.folder} keeps no captions", "make it again: kind-train cache --captions")

    def told(self, store: WordStore) -> LatentSet:
        """With the words of the captions; raises DataError where some are not in `store`, or the cache keeps none."""
        self.require_texts()
        store.require(self.texts, str(self.folder))
        return replace(self, captions=Captions.of(self.texts, self.labels.tolist(), len(self.classes), store))

    def describe(self, index: int) -> str:
        """The number of a photo and its class."""
        return describe_photo(index, self.classes[int(self.labels[index])])

    def digests(self) -> list[str]:
        """sha256 of the pixels of each photo, before it was encoded."""
        places = zip(files.list_shards(self.folder), self._shards, strict=True)
        hashes = [one for place, latents in places for one in files.read_hashes(place, len(latents))]
        return [hashes[row] for row in self.rows.tolist()]

    def choose(self, asked: Sequence[str] | Sequence[ClassInfo]) -> LatentSet:
        """The photos of some classes, in their order: see `Source.choose`."""
        if not asked:
            return self
        kept = choose_classes(asked, self.classes)
        position = torch.full((len(self.classes),), -1)
        position[kept] = torch.arange(len(kept))
        some = self.select((position[self.labels] >= 0).nonzero()[:, 0])
        classes = tuple(self.classes[i] for i in kept)
        return replace(some, labels=position[some.labels], classes=classes)


def open_cache(path: Path) -> LatentSet:
    """A finished cache; raises DataError where it is unfinished, newer or damaged."""
    cache = files.read_cache_file(path)
    if not cache.finished:
        raise DataError(f"the cache {path} is not finished", "run the same kind-train cache command with --resume")
    files.check_autoencoder(path, cache.settings)
    num_latents = sum(map(len, files.open_shards(path, cache.settings)))
    rows, labels = files.read_index(path, num_latents, cache.classes)
    texts = files.read_captions(path, len(rows))
    return LatentSet(folder=path, settings=cache.settings, rows=rows, labels=labels, classes=cache.classes, texts=texts)


def load_latents_or_photos(
    path: str, size: int, *, classes: Sequence[str] | Sequence[ClassInfo] = (), tell: Tell = ignore
) -> TrainingSet:
    """The asked `classes`, or all, of a cache, else of photos brought to `size`; raises what reading either does."""
    if is_cache(path):
        return open_cache(Path(path)).choose(classes)
    return load_photos(path, size, classes=classes, tell=tell)
