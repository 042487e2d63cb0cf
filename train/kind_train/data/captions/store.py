"""Embedded captions as training reads them: of each caption the words that a model reads, and no others.

A text encoder fills every caption up to its number of tokens; what its mask leaves out a model never reads, so it is
not stored. Words are looked up by the caption's text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from kind_core.errors import ConfigError, DataError
from kind_core.files.shards import shard_name
from kind_core.files.staging import staged
from kind_core.files.tensor_files import write_tensors
from kind_core.files.weight_files import is_pointer
from kind_train.data.captions.store_files import (
    AGAIN,
    CAPTIONS_NAME,
    SHARD,
    SHARDS_NAME,
    WORDS_NAME,
    EncoderRecord,
    list_shards,
    read_captions,
    read_record,
    write_record,
)

NULL_CAPTION = ""
# Embedded words (batch, words, channels) float32, and a mask (batch, words) with 1 for those that are read.
Words = tuple[Tensor, Tensor]


class WordStore:
    """The captions of a cache; their words stay on the disk until they are read."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError where the cache is missing, newer or damaged."""
        self.folder, self.record = folder, read_record(folder)
        self._places: dict[str, tuple[Path, int, int]] = {}  # shard, first word, number of words
        self._files: dict[Path, Any] = {}
        for shard in list_shards(folder):
            self._add(shard)

    def __contains__(self, caption: str) -> bool:
        return caption in self._places

    def __len__(self) -> int:
        return len(self._places)

    def read(self, captions: Sequence[str]) -> Words:
        """The words of `captions`, filled up to the longest of them with zeros that are not read."""
        read = [self._read(caption) for caption in captions]
        lengths = torch.tensor([len(one) for one in read])
        text = pad_sequence(read, batch_first=True) if read else torch.zeros(0, 1, self.record.channels)
        return text, (torch.arange(text.shape[1]) < lengths[:, None]).float()

    def require(self, captions: Iterable[str], data: str) -> None:
        """Raise DataError where some of the captions of `data`, or the null one, are not here."""
        wanted = dict.fromkeys((NULL_CAPTION, *captions))
        missing = [one for one in wanted if one not in self]
        if missing:
            raise DataError(
                f"{len(missing)} of the {len(wanted)} captions of {data} are not in {self.folder}, such as "
                f"{missing[-1]!r:.80}",
                f"embed them, too: kind-train embed --data {data} --output {self.folder} --resume",
            )

    def _add(self, shard: Path) -> None:
        captions, lengths = read_captions(shard), self._opened(shard).get_tensor("lengths").tolist()
        shape = self._words(shard).get_shape()
        is_whole = len(lengths) == len(captions) and min(lengths, default=1) >= 1
        if not is_whole or shape != [sum(lengths), self.record.channels]:
            raise DataError(
                f"{shard / WORDS_NAME} holds words of shape {shape} that do not go with {CAPTIONS_NAME}", AGAIN
            )
        ends = torch.tensor([0, *lengths]).cumsum(0).tolist()
        for caption, start, length in zip(captions, ends, lengths, strict=False):
            self._places[caption] = shard, start, length

    def _read(self, caption: str) -> Tensor:
        shard, start, length = self._places[caption]
        words: Tensor = self._words(shard)[start : start + length]
        if not words.isfinite().all():
            raise DataError(f"the words of {caption!r:.60} in {shard / WORDS_NAME} are not finite", AGAIN)
        return words.float()

    def _words(self, shard: Path) -> Any:
        return self._opened(shard).get_slice("words")

    def _opened(self, shard: Path) -> Any:
        if shard not in self._files:
            self._files[shard] = _open(shard / WORDS_NAME)
        return self._files[shard]


def _open(file: Path) -> Any:
    try:
        if is_pointer(file):
            raise DataError(f"{file} is a Git LFS pointer, not the data", "git lfs pull brings it")
        opened: Any = safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise DataError(f"{file} is damaged: {error}", AGAIN) from error
    if {*opened.keys()} != {"words", "lengths"}:
        raise DataError(f"{file} holds {', '.join(opened.keys())}, expected words and lengths", AGAIN)
    return opened


def make_store(folder: Path, record: EncoderRecord) -> None:
    """An empty cache at `folder`, which is there."""
    (folder / SHARDS_NAME).mkdir()
    write_record(folder, record)


def append_shard(folder: Path, captions: Sequence[str], words: Sequence[Tensor]) -> None:
    """Add captions with their words, (number of words, channels) each, to a cache: all of them, or none at a kill."""
    stored = torch.cat([one.half().cpu() for one in words])
    if not stored.isfinite().all():
        raise ConfigError("an embedded word is not finite in fp16", "run the text encoder in float32")
    with staged(folder / SHARDS_NAME / shard_name(len(list_shards(folder))), SHARD) as place:
        place.mkdir()
        write_tensors(place / WORDS_NAME, {"words": stored, "lengths": torch.tensor([len(one) for one in words])})
        (place / CAPTIONS_NAME).write_text(json.dumps(list(captions), ensure_ascii=False), encoding="utf-8")
