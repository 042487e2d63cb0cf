"""A checkpoint of a model that draws from captions: the files of any other, with `text` in its `config.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from kind_core.autoencoder import ImageDecoder
from kind_core.checkpoint import Checkpoint, hash_loaded, load_checkpoint, load_weights, read_decoder, subset_config
from kind_core.checkpoint_config import read_any_config, read_text_config
from kind_core.config import DiTConfig, ModelConfig, TextConfig
from kind_core.dit import DivertedTransformer, KindDiT
from kind_core.text.pixart import KindPixArt


@dataclass(frozen=True, kw_only=True, slots=True)
class TextCheckpoint:
    """A loaded checkpoint. `config` and `model` hold the asked domains only; `sha256` covers exactly the files read.

    `decoder` makes images of latents, where the model does not work on pixels.
    """

    config: ModelConfig
    model: KindPixArt
    sha256: str
    decoder: ImageDecoder | None = None


def load_text_checkpoint(
    path: Path, domains: Sequence[int] | None = None, *, with_decoder: bool = True
) -> TextCheckpoint:
    """Load the learngene and the tailors of `domains` (indices into the config, all by default), in fp32.

    Domain i of the returned model is `domains[i]`. `with_decoder`: a model of latents comes with its autoencoder.
    Raises CheckpointError naming file and tensor for anything missing, of another shape, not finite or cut short.
    """
    full, text = read_text_config(path)
    config = subset_config(full, list(range(full.dit.num_classes)) if domains is None else list(domains))
    learngene = _count_learngene(config.dit, text)
    model = load_weights(path, config, lambda: KindPixArt(config.dit, text), learngene)
    decoder = read_decoder(path, config) if with_decoder else None
    return TextCheckpoint(config=config, model=model, sha256=hash_loaded(path, config, decoder), decoder=decoder)


def make_model(config: ModelConfig) -> DivertedTransformer:
    """The random model that a config describes, of classes or of captions."""
    return KindDiT(config.dit) if config.text is None else KindPixArt(config.dit, config.text)


def load_any_checkpoint(
    path: Path, classes: Sequence[int] | None = None, *, with_decoder: bool = True
) -> Checkpoint | TextCheckpoint:
    """`load_checkpoint` or `load_text_checkpoint`, whichever reads what lies at `path`."""
    load = load_checkpoint if read_any_config(path).text is None else load_text_checkpoint
    return load(path, classes, with_decoder=with_decoder)


def _count_learngene(config: DiTConfig, text: TextConfig) -> int:
    """Parameters that serve every domain, counted without memory: all but the depth is the model's, one block of it."""

    def count(depth: int) -> int:
        with torch.device("meta"):
            model = KindPixArt(replace(config, num_classes=1, tailor_rank=0, tailor_ranks=None, depth=depth), text)
        return sum(tensor.numel() for tensor in model.learngene_state().values())

    one, two = count(1), count(2)
    return one + (two - one) * (config.depth - 1)
