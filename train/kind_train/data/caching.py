"""`kind-train cache`: photos through an autoencoder once, so that training reads latents.

The work is done in shards that are there whole or not at all. A killed cache goes on after its last shard, one that was
asked to stop after its last batch: a photo whose pixels were encoded already, in this run or before, is not encoded
again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kind_core.autoencoder import (
    AUTOENCODER_NAME,
    copy_autoencoder,
    encode_moments,
    hash_copy,
    load_autoencoder,
    read_autoencoder,
)
from kind_core.checkpoint_config import AUTOENCODER_FILES
from kind_core.classes import ClassInfo
from kind_core.errors import ConfigError, OutputError
from kind_core.files.litter import is_bare
from kind_core.files.regular_files import measure_bytes
from kind_core.files.shards import shard_name
from kind_core.files.staging import PART, claimed, folder_kind, recover, staged
from kind_core.files.tensor_files import write_tensors
from kind_core.stopping import hold_interrupts, noted_stops
from kind_train.data import cache_files as files
from kind_train.data.photo_set import Tell, hash_pixels, ignore
from kind_train.data.photo_source import Chosen, Skipped, tell_skipped
from kind_train.data.requests import CacheRequest
from kind_train.data.sources import choose_photos
from kind_train.device import pick_device, tune_device
from kind_train.display import Update, ignore_progress


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheResult:
    """What a finished cache holds."""

    photos: int
    latents: int
    duplicates: int
    skipped: tuple[Skipped, ...]
    size_bytes: int


def make_cache(request: CacheRequest, on_progress: Update = ignore_progress, tell: Tell = ignore) -> CacheResult:
    """Encode every photo and write the cache; raises a KindError, and what is finished stays for --resume.

    `tell` gets the lines about what of the data could not be read.
    """
    config = read_autoencoder(request.autoencoder)
    if request.size % config.downscale:
        raise ConfigError(f"size is {request.size}, expected a multiple of the autoencoder's {config.downscale}")
    chosen = choose_photos(request.data, request.classes, tell, request.output, with_captions=request.captions)
    if request.captions:
        chosen.captions()  # raises where one has none
    settings = files.CacheSettings(
        autoencoder=config,
        autoencoder_sha256=hash_copy(request.autoencoder),
        size=request.size,
        flip=request.flip,
        shard_rows=request.shard_rows,
    )
    with claimed(request.output, CACHE):
        _start(request, settings, chosen.classes)
        return _encode_photos(request, settings, chosen, on_progress, tell)


def _encode_photos(
    request: CacheRequest, settings: files.CacheSettings, chosen: Chosen, on_progress: Update, tell: Tell
) -> CacheResult:
    writer = _ShardWriter(request, settings)
    rows: dict[tuple[int, int, str], None] = {}  # (latent, label, caption), each once, in the order of the photos
    skipped: list[Skipped] = []
    photos = 0
    total = len(chosen)
    with noted_stops() as stop:
        for photo in chosen.read(request.size, skipped.append, strict=request.strict):
            rows[writer.add(photo.pixels), photo.label, photo.caption] = None
            photos += 1
            on_progress(photos + len(skipped), total, f"{len(writer.known)} latents")
            if stop.number:
                writer.keep()
                break
    writer.finish()
    tell_skipped(skipped, tell)
    labels = [label for _, label, _ in rows]
    chosen.require_classes(labels)
    files.write_captions(request.output, [caption for _, _, caption in rows] if request.captions else None)
    index = {"rows": torch.tensor([row for row, _, _ in rows]), "labels": torch.tensor(labels)}
    with staged(request.output / files.INDEX_NAME, PART, force=True) as file:
        write_tensors(file, index)
    files.write_cache_file(request.output, files.CacheFile(settings=settings, classes=chosen.classes, finished=True))
    return CacheResult(
        photos=photos,
        latents=len(writer.known),
        duplicates=photos - len(rows),
        skipped=tuple(skipped),
        size_bytes=measure_bytes(request.output),
    )


def _is_cache_file(name: str) -> bool:
    folder, _, rest = name.rpartition("/")
    return name in (files.CACHE_NAME, files.INDEX_NAME, files.CAPTIONS_NAME, *AUTOENCODER_FILES) or (
        folder.startswith(f"{files.SHARDS_NAME}/") and rest in (files.LATENTS_NAME, files.HASHES_NAME)
    )


CACHE = folder_kind("a cache of latents", None, _is_cache_file, heart=files.CACHE_NAME)
_SHARD = folder_kind("a shard", None, (files.LATENTS_NAME, files.HASHES_NAME).__contains__)


def _start(request: CacheRequest, settings: files.CacheSettings, classes: tuple[ClassInfo, ...]) -> None:
    """Make the folder of a new cache, or see that the one there is the same."""
    folder, begun = request.output, files.CacheFile(settings=settings, classes=classes, finished=False)
    if files.is_cache(folder) and not request.force:
        if not request.resume:
            raise OutputError(f"{folder} already holds a cache", "continue it with --resume or replace it with --force")
        then = _correct_scale(folder, files.read_cache_file(folder).settings, settings)
        for field in fields(settings):
            old, new = (getattr(one, field.name) for one in (then, settings))
            if old != new:
                raise ConfigError(
                    f"the cache {folder} was made with {field.name} {old!r}, not {new!r}",
                    "continue it with that, or replace it with --force",
                )
        recover(folder / files.SHARDS_NAME)
        files.write_cache_file(folder, begun)
        return
    is_empty = folder.is_dir() and is_bare(folder)
    if folder.is_dir() and not is_empty and (misfit := CACHE.find_misfit(folder)):
        hint = "choose an empty or a new --output; --force replaces only a cache"
        raise OutputError(f"{folder} holds other files than a cache: {misfit}", hint)
    if request.resume:
        raise ConfigError(f"{folder} holds no cache to resume", "start without --resume")
    with staged(folder, CACHE, force=request.force or is_empty) as place:
        copy_autoencoder(request.autoencoder, place / AUTOENCODER_NAME)
        (place / files.SHARDS_NAME).mkdir()
        files.write_cache_file(place, begun)


def _correct_scale(folder: Path, held: files.CacheSettings, asked: files.CacheSettings) -> files.CacheSettings:
    """The settings of a cache made when a missing scaling_factor was read as 1: the autoencoder beside it says it.

    What is stored is not scaled, so the latents stay as they are.
    """
    meant = read_autoencoder(folder / AUTOENCODER_NAME)
    is_its_own = meant == asked.autoencoder and held.autoencoder_sha256 == asked.autoencoder_sha256
    return replace(held, autoencoder=meant) if is_its_own and files.differs_in_scale(held.autoencoder, meant) else held


class _ShardWriter:
    """Encodes photos whose pixels it has not seen, a batch at a time, and writes them a shard at a time."""

    def __init__(self, request: CacheRequest, settings: files.CacheSettings) -> None:
        self.settings = settings
        self.device = pick_device(request.device)
        tune_device(self.device)
        self.autoencoder = load_autoencoder(request.autoencoder, settings.autoencoder).to(self.device)
        self.batch_size = request.batch_size
        self.folder = request.output / files.SHARDS_NAME
        self.known: dict[str, int] = {}
        self.num_shards = 0
        shards = files.open_shards(request.output, settings)
        self._waiting: list[np.ndarray] = []
        self._encoded: list[Tensor] = []
        self._hashes: list[str] = []
        for place, latents in zip(files.list_shards(request.output), shards, strict=True):
            hashes = files.read_hashes(place, len(latents))
            self.known |= {one: len(self.known) + i for i, one in enumerate(hashes)}
            if len(hashes) < settings.shard_rows:  # the last one, which stays until it is replaced by a longer one
                self._encoded, self._hashes = [torch.from_numpy(np.array(latents))], hashes
                break
            self.num_shards += 1

    def add(self, pixels: np.ndarray) -> int:
        """The row of the latent of these pixels, which is encoded where they are new."""
        digest = hash_pixels(pixels)
        if digest in self.known:
            return self.known[digest]
        self.known[digest] = len(self.known)
        self._hashes.append(digest)
        self._waiting.append(pixels)
        if len(self._waiting) == self.batch_size or len(self._hashes) == self.settings.shard_rows:
            self._encode()
        if len(self._hashes) == self.settings.shard_rows:
            self._write()
        return self.known[digest]

    def keep(self) -> None:
        """Write what is encoded, where whole batches end: going on from there gives the same bytes."""
        del self._hashes[len(self._hashes) - len(self._waiting) :]
        self._waiting.clear()
        if self._hashes:
            with hold_interrupts():
                self._write()

    def finish(self) -> None:
        """Write what is left."""
        if self._waiting:
            self._encode()
        if self._hashes:
            self._write()

    def _encode(self) -> None:
        images = torch.from_numpy(np.stack(self._waiting)).to(self.device).float() / 127.5 - 1
        ways = [images, images.flip(-1)] if self.settings.flip else [images]
        moments = [encode_moments(self.autoencoder, self.settings.autoencoder, way) for way in ways]
        self._encoded.append(torch.stack(moments, dim=1).half().cpu())
        self._waiting.clear()

    def _write(self) -> None:
        with staged(self.folder / shard_name(self.num_shards), _SHARD, force=True) as place:
            place.mkdir()
            np.save(place / files.LATENTS_NAME, torch.cat(self._encoded).numpy())
            (place / files.HASHES_NAME).write_text(json.dumps(self._hashes), encoding="utf-8")
        self.num_shards += 1
        self._encoded.clear()
        self._hashes.clear()
