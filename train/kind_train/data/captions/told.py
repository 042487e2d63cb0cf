"""The captions of a training set, and a model that is told them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kind_train.data.captions.store import NULL_CAPTION, Words, WordStore

Forward = Callable[..., Tensor]
_EXAMPLES = 8


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
