"""A caption as the programs of a bundle take it: embedded words, and which of them are read."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from kind_core.errors import ConfigError

CAPTION_NAME = "caption.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Caption:
    """What a text encoder gives of a caption and of the null one, the empty text as a rule.

    text and null_text (words, channels) float32; mask and null_mask (words,) with 1 for the words that are read. A
    leading axis of one, as pipelines have it, is taken off. diffusers' `encode_prompt` gives all four.
    """

    text: np.ndarray
    mask: np.ndarray
    null_text: np.ndarray
    null_mask: np.ndarray

    def __post_init__(self) -> None:
        for field, axes in zip(fields(self), (2, 1, 2, 1), strict=True):
            given = np.asarray(getattr(self, field.name), np.float32)
            one = given[0] if given.ndim == axes + 1 and len(given) == 1 else given
            if one.ndim != axes or not np.isfinite(one).all():
                expected = "(words, channels)" if axes == 2 else "(words,)"
                raise ConfigError(f"{field.name} has shape {list(given.shape)}, expected finite numbers {expected}")
            object.__setattr__(self, field.name, one)
        for text, mask in ((self.text, self.mask), (self.null_text, self.null_mask)):
            if len(text) != len(mask):
                raise ConfigError(f"the text has {len(text)} words, its mask {len(mask)}, expected as many")

    @classmethod
    def read(cls, file: Path) -> Self:
        """From a safetensors file with these four tensors; raises ConfigError."""
        try:
            tensors = load_file(file)
        except (OSError, SafetensorError) as error:
            raise ConfigError(
                f"cannot read the caption {file}: {error}", "write it with Caption(...).save(file)"
            ) from error
        names = [field.name for field in fields(cls)]
        if sorted(tensors) != sorted(names):
            held = ", ".join(sorted(tensors)) or "nothing"
            raise ConfigError(
                f"{file} holds {held}, expected {', '.join(names)}", "write it with Caption(...).save(file)"
            )
        return cls(**tensors)

    def save(self, file: Path) -> None:
        """To a safetensors file."""
        file.write_bytes(save({field.name: getattr(self, field.name) for field in fields(self)}))

    def inputs(self, words: int, channels: int) -> dict[str, np.ndarray]:
        """The inputs of a step of so many words, the shorter text filled up with words that are not read."""
        text, mask = np.zeros((2, words, channels), np.float32), np.zeros((2, words), np.float32)
        for half, (given, read) in enumerate(((self.text, self.mask), (self.null_text, self.null_mask))):
            if given.shape[1] != channels or len(given) > words:
                raise ConfigError(
                    f"the text has {len(given)} words of {given.shape[1]} channels, the programs take up to {words} of "
                    f"{channels}",
                    "embed it with the text encoder of the model that was exported",
                )
            text[half, : len(given)], mask[half, : len(given)] = given, read
        return {"text": text, "text_mask": mask}
