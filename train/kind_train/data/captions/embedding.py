"""`kind-train embed`: each caption once through the text encoder, so that training does without it.

Captions are written in shards that are there whole or not at all; a caption that is there is not embedded again, so a
killed cache goes on where it was, and one of a data set takes in those of another.

The text encoder is that of a PixArt pipeline: a T5 in a local folder, which embeds captions as diffusers'
`PixArtAlphaPipeline.encode_prompt` does, in lower case, filled up or cut to a number of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from kind_core.console.quiet import without_import_noise
from kind_core.diffusers.layout import INDEX_NAME
from kind_core.errors import ConfigError, OutputError, TargetError
from kind_core.files.hashing import hash_files
from kind_core.files.json_files import read_object
from kind_core.files.litter import is_bare
from kind_core.files.regular_files import measure_bytes
from kind_core.files.staging import check_output, claimed, file_kind, recover, staged
from kind_core.files.weight_files import find_misfit
from kind_core.stopping import hold_interrupts, noted_stops
from kind_core.text.folder import count_tokens
from kind_runtimes.captions import Caption
from kind_train.data.captions.store import NULL_CAPTION, WordStore, append_shard, make_store
from kind_train.data.captions.store_files import SHARDS_NAME, STORE, EncoderRecord, is_store
from kind_train.data.latents import is_cache, open_cache
from kind_train.data.photo_set import Tell, ignore
from kind_train.data.requests import ENCODER_NAME, TOKENIZER_NAME, EmbedRequest
from kind_train.data.sources import choose_photos
from kind_train.device import pick_device, tune_device
from kind_train.display import Update, ignore_progress

_SHARD_CAPTIONS = 1024
CAPTION_FILE = file_kind("a caption", Caption.read)
_HINT = "give the folder of a PixArt pipeline, as diffusers saves it with safe_serialization"


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedResult:
    """How many captions a cache holds, the null one among them, and how many of them are new."""

    captions: int
    new: int
    size_bytes: int


def embed_captions(request: EmbedRequest, on_progress: Update = ignore_progress, tell: Tell = ignore) -> EmbedResult:
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
    return EmbedResult(captions=len(store) + len(new), new=len(new), size_bytes=measure_bytes(request.output))


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
    return choose_photos(request.data, request.classes, tell, request.output, with_captions=True).captions()


def _open_encoder(request: EmbedRequest) -> TextEncoder:
    device = pick_device(request.device)
    tune_device(device)
    return TextEncoder(request.text_encoder, device, request.tokens)


def _embed(request: EmbedRequest, encoder: TextEncoder, captions: Sequence[str], on_progress: Update) -> None:
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


class TextEncoder:
    """The T5 in a pipeline's folder; `record` says which it is, and how many words it gives at most.

    Raises ConfigError for another or a damaged one, TargetError where transformers is not installed.
    """

    def __init__(self, folder: Path, device: torch.device, tokens: int | None = None) -> None:
        index = read_object(folder / INDEX_NAME, ConfigError, _HINT) if (folder / INDEX_NAME).is_file() else {}
        config = read_object(folder / ENCODER_NAME / "config.json", ConfigError, _HINT)
        if config.get("model_type") != "t5":
            raise ConfigError(
                f"{folder / ENCODER_NAME} is of model_type {config.get('model_type')!r}, expected 't5'", _HINT
            )
        files = sorted(file for name in (ENCODER_NAME, TOKENIZER_NAME) for file in (folder / name).iterdir())
        weights = [file for file in files if file.suffix == ".safetensors"]
        _require_weights(folder, weights)
        self.device = device
        self._tokenizer, self._network = _load(folder)
        self._network.to(device)
        self.record = EncoderRecord(
            name=f"T5 of {folder.resolve().name}",
            sha256=hash_files([file for file in files if file.is_file()]),
            channels=self._network.config.d_model,
            tokens=tokens or count_tokens(index),
        )

    @torch.no_grad()
    def embed(self, captions: Sequence[str]) -> list[Tensor]:
        """The words of each caption that a model reads, (number of words, channels) float32."""
        tokens = self._tokenizer(
            [caption.lower().strip() for caption in captions],
            padding="longest",  # what is beyond the mask no word attends to
            max_length=self.record.tokens,
            truncation=True,
            add_special_tokens=True,
            return_tensors="pt",
        )
        mask = tokens.attention_mask.to(self.device)
        hidden = self._network(tokens.input_ids.to(self.device), attention_mask=mask)[0].float()
        return [words[read == 1] for words, read in zip(hidden, mask, strict=True)]


def _require_weights(folder: Path, weights: Sequence[Path]) -> None:
    if not weights:
        raise ConfigError(f"{folder / ENCODER_NAME} has no weights in safetensors", _HINT)
    for file in weights:
        misfit = find_misfit(file)
        if misfit is not None:
            raise ConfigError(f"{file} {misfit}", _HINT)


def _load(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and encoder, of local files alone; nothing of the folder is run."""
    try:
        with without_import_noise():
            from transformers import AutoTokenizer, T5EncoderModel
            from transformers.utils import logging
    except (ImportError, RuntimeError) as error:
        message = f"captions are embedded by transformers, which cannot be imported: {error}"
        raise TargetError(message, "pip install 'kind-diffusion[captions]'") from error
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder / TOKENIZER_NAME, local_files_only=True, trust_remote_code=False
        )
        network, loaded = T5EncoderModel.from_pretrained(
            folder / ENCODER_NAME, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (SafetensorError, OSError, ValueError, RuntimeError, ImportError) as error:
        raise ConfigError(f"{folder} has no T5 that can be loaded: {' '.join(str(error).split())}", _HINT) from error
    # transformers fills what a file lacks with chance, and words by that would look like any others
    lacking = sorted({*loaded["missing_keys"], *(str(key) for key in loaded["mismatched_keys"])})
    if lacking:
        raise ConfigError(f"{folder / ENCODER_NAME} lacks {len(lacking)} weights, of them {lacking[0]}", _HINT)
    return tokenizer, network.float().eval()
