"""Embedded captions as training reads them, and a model that is told them: of each the words that it reads, no others.

A text encoder fills every caption up to its number of tokens; what its mask leaves out a model never reads, so it is
not stored. Words are looked up by the caption's text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
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
from kind_train.data.captions import store_files as files

NULL_CAPTION = ""
# Embedded words (batch, words, channels) float32, and a mask (batch, words) with 1 for those that are read.
Words = tuple[Tensor, Tensor]
Forward = Callable[..., Tensor]
_EXAMPLES = 8


class WordStore:
    """The captions of a cache; their words stay on the disk until they are read."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError where the cache is missing, newer or damaged."""
        self.folder, self.record = folder, files.read_record(folder)
        self._places: dict[str, tuple[Path, int, int]] = {}  # shard, first word, number of words
        self._files: dict[Path, Any] = {}
        for shard in files.list_shards(folder):
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
        captions, lengths = files.read_captions(shard), self._opened(shard).get_tensor("lengths").tolist()
        shape = self._words(shard).get_shape()
        is_whole = len(lengths) == len(captions) and min(lengths, default=1) >= 1
        if not is_whole or shape != [sum(lengths), self.record.channels]:
            message = f"{shard / files.WORDS_NAME} holds words of shape {shape} that do not go with"
            raise DataError(f"{message} {files.CAPTIONS_NAME}", files.AGAIN)
        ends = torch.tensor([0, *lengths]).cumsum(0).tolist()
        for caption, start, length in zip(captions, ends, lengths, strict=False):
            self._places[caption] = shard, start, length

    def _read(self, caption: str) -> Tensor:
        shard, start, length = self._places[caption]
        words: Tensor = self._words(shard)[start : start + length]
        if not words.isfinite().all():
            raise DataError(f"the words of {caption!r:.60} in {shard / files.WORDS_NAME} are not finite", files.AGAIN)
        return words.float()

    def _words(self, shard: Path) -> Any:
        return self._opened(shard).get_slice("words")

    def _opened(self, shard: Path) -> Any:
        if shard not in self._files:
            self._files[shard] = _open(shard / files.WORDS_NAME)
        return self._files[shard]


def _open(file: Path) -> Any:
    try:
        if is_pointer(file):
            raise DataError(f"{file} is a Git LFS pointer, not the data", "git lfs pull brings it")
        opened: Any = safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise DataError(f"{file} is damaged: {error}", files.AGAIN) from error
    if {*opened.keys()} != {"words", "lengths"}:
        raise DataError(f"{file} holds {', '.join(opened.keys())}, expected words and lengths", files.AGAIN)
    return opened


def make_store(folder: Path, record: files.EncoderRecord) -> None:
    """An empty cache at `folder`, which is there."""
    (folder / files.SHARDS_NAME).mkdir()
    files.write_record(folder, record)


def append_shard(folder: Path, captions: Sequence[str], words: Sequence[Tensor]) -> None:
    """Add captions with their words, (number of words, channels) each, to a cache: all of them, or none at a kill."""
    stored = torch.cat([one.half().cpu() for one in words])
    if not stored.isfinite().all():
        raise ConfigError("an embedded word is not finite in fp16", "run the text encoder in float32")
    with staged(folder / files.SHARDS_NAME / shard_name(len(files.list_shards(folder))), files.SHARD) as place:
        place.mkdir()
        write_tensors(place / files.WORDS_NAME, {"words": stored, "lengths": torch.tensor([len(one) for one in words])})
        (place / files.CAPTIONS_NAME).write_text(json.dumps(list(captions), ensure_ascii=False), encoding="utf-8")


@dataclass(frozen=True, kw_only=True, slots=True)
class Captions:
    """The caption of each photo, whose words `store` has; `examples` are some of each class, to draw by."""

    texts: tuple[str, ...]
    store: WordStore
    examples: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, texts: Sequence[str], labels: Sequence[int], num_classes: int, store: WordStore) -> Captions:
        """Of photos with these captions and labels."""
        held: list[dict[str, None]] = [{} for _ in range(num_classes)]
        for text, label in zip(texts, labels, strict=True):
            if len(held[label]) < _EXAMPLES:
                held[label][text] = None
        return cls(texts=tuple(texts), store=store, examples=tuple(map(tuple, held)))

    def select(self, indices: Tensor) -> Captions:
        """Those of the photos at `indices`; examples stay."""
        return replace(self, texts=tuple(self.texts[index] for index in indices.tolist()))

    def read(self, indices: Tensor, is_null: Tensor | None = None) -> Words:
        """The words of the photos at `indices`, the null caption's where `is_null` (bool, like indices)."""
        dropped = [False] * len(indices) if is_null is None else is_null.tolist()
        chosen = zip(indices.tolist(), dropped, strict=True)
        return self.store.read([NULL_CAPTION if drop else self.texts[index] for index, drop in chosen])

    def read_examples(self, labels: Sequence[int]) -> Words:
        """The words of an example for each label, another one at each repetition, and last of the null caption."""
        counts = [0] * len(self.examples)
        texts = []
        for label in labels:
            texts.append(self.examples[label][counts[label] % len(self.examples[label])])
            counts[label] += 1
        return self.store.read([*texts, NULL_CAPTION])


def tell(forward: Forward, words: Words | None, device: torch.device) -> Forward:
    """`forward`, a model of captions, as one of classes that is told `words`; itself where there are none."""
    if words is None:
        return forward
    text, mask = (one.to(device) for one in words)

    def told(latents: Tensor, timesteps: Tensor, labels: Tensor, gates: Tensor, rows: Tensor | None = None) -> Tensor:
        return forward(latents, timesteps, labels, gates, text, mask, rows)

    return told


def tell_guided(forward: Forward, words: Words | None, device: torch.device) -> Forward:
    """The same for sampling: the last of `words` is the null caption, read where no label is given.

    A guided step asks for the batch twice.
    """
    if words is None:
        return forward
    text, mask = (one.to(device) for one in words)

    def told(latents: Tensor, timesteps: Tensor, labels: Tensor, gates: Tensor) -> Tensor:
        own = torch.arange(len(latents), device=device) % (len(text) - 1)
        chosen = torch.where(labels < 0, len(text) - 1, own)
        return forward(latents, timesteps, labels, gates, text[chosen], mask[chosen])

    return told
