"""`kind-train embed`: each caption once through the text encoder, so that training does without it.

Captions are written in shards that are there whole or not at all; a caption that is there is not embedded again, so a
killed cache goes on where it was, and one of a data set takes in those of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from kind_core.errors import ConfigError, OutputError
from kind_core.files.litter import is_bare
from kind_core.files.staging import check_output, claimed, file_kind, recover, staged
from kind_core.stopping import hold_interrupts, noted_stops
from kind_runtimes.captions import Caption
from kind_train.data.captions.encoder import TextEncoder
from kind_train.data.captions.request import EmbedRequest
from kind_train.data.captions.store import NULL_CAPTION, WordStore, append_shard, make_store
from kind_train.data.captions.store_files import SHARDS_NAME, STORE, EncoderRecord, is_store
from kind_train.data.latents import is_cache, open_cache
from kind_train.data.photo_set import Tell, ignore, list_captions, require_photos
from kind_train.data.sources import open_source
from kind_train.device import pick_device, tune_device

OnProgress = Callable[[int, int, str], None]
_SHARD_CAPTIONS = 1024
CAPTION_FILE = file_kind("a caption", Caption.read)


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedResult:
    """How many captions a cache holds, the null one among them, and how many of them are new."""

    captions: int
    new: int
    size_bytes: int


def embed_captions(
    request: EmbedRequest, on_progress: OnProgress = lambda done, total, status: None, tell: Tell = ignore
) -> EmbedResult:
    """Embed the captions of photos; raises a KindError, and what is finished stays for --resume.

    `tell` gets the lines about what of the data is left out.
    """
    captions = find_captions(request, tell)
    _check_output(request)
    encoder = _open_encoder(request)
    with claimed(request.output, STORE):
        _start(request, encoder.record)
        store = WordStore(request.output)
        new = [caption for caption in dict.fromkeys((NULL_CAPTION, *captions)) if caption not in store]
        _embed(request, encoder, new, on_progress)
    files = [file for file in request.output.rglob("*") if file.is_file()]
    return EmbedResult(
        captions=len(store) + len(new), new=len(new), size_bytes=sum(file.stat().st_size for file in files)
    )


def embed_caption(request: EmbedRequest) -> Caption:
    """Write one caption and the null one as a bundle of captions takes them."""
    assert request.caption is not None
    with staged(request.output, CAPTION_FILE, force=request.force) as file:
        text, null = _open_encoder(request).embed([request.caption, NULL_CAPTION])
        ones = [np.ones(len(words), np.float32) for words in (text, null)]
        caption = Caption(text=text.cpu().numpy(), mask=ones[0], null_text=null.cpu().numpy(), null_mask=ones[1])
        caption.save(file)
    return caption


def find_captions(request: EmbedRequest, tell: Tell = ignore) -> list[str]:
    """The captions of the photos that are asked for; raises DataError where one has none."""
    assert request.data is not None
    if is_cache(request.data):
        latents = open_cache(Path(request.data)).choose(request.classes)
        latents.require_texts()
        return list(latents.texts)
    source = open_source(request.data, request.output, with_captions=True)
    kept = source.choose(request.classes)
    require_photos(source, kept)
    for line in source.notes:
        tell(line)
    return list_captions(source, kept)


def _open_encoder(request: EmbedRequest) -> TextEncoder:
    device = pick_device(request.device)
    tune_device(device)
    return TextEncoder(request.text_encoder, device, request.tokens)


def _embed(request: EmbedRequest, encoder: TextEncoder, captions: Sequence[str], on_progress: OnProgress) -> None:
    """A shard is written when it is full, at the end, and where the work is stopped."""
    words: list[Tensor] = []
    waiting: list[str] = []
    with noted_stops() as stop:
        for start in range(0, len(captions), request.batch_size):
            part = captions[start : start + request.batch_size]
            words += encoder.embed(part)
            waiting += part
            on_progress(start + len(part), len(captions), "captions")
            if stop.number or len(waiting) >= _SHARD_CAPTIONS or start + len(part) == len(captions):
                with hold_interrupts():
                    append_shard(request.output, waiting, words)
                words, waiting = [], []
            if stop.number:
                break


def _check_output(request: EmbedRequest) -> None:
    """Raise before the encoder is loaded where nothing can be written to the output."""
    folder = request.output
    if is_store(folder) and not (request.force or request.resume):
        raise OutputError(f"{folder} already holds embedded captions", "add to them with --resume, or use --force")
    if request.resume and not is_store(folder):
        raise ConfigError(f"{folder} holds no embedded captions to add to", "start without --resume")
    check_output(folder, STORE, force=True)  # of what else lies there none is replaced


def _start(request: EmbedRequest, record: EncoderRecord) -> None:
    """Make the folder of a new cache, or see that the one there is of the same encoder."""
    folder = request.output
    if is_store(folder) and not request.force:
        held = WordStore(folder).record
        if replace(held, name=record.name) != record:
            raise ConfigError(
                f"{folder} was made by {held.name} ({held.sha256:.8}, {held.tokens} words), not by {record.name} "
                f"({record.sha256:.8}, {record.tokens} words)",
                "go on with that, or replace the cache with --force",
            )
        recover(folder / SHARDS_NAME)
        return
    is_empty = folder.is_dir() and is_bare(folder)
    with staged(folder, STORE, force=request.force or is_empty) as place:
        place.mkdir()
        make_store(place, record)
