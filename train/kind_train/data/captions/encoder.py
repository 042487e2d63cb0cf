"""The text encoder of a PixArt pipeline: a T5 in a local folder, which embeds captions as the pipeline does.

diffusers' `PixArtAlphaPipeline.encode_prompt`: a caption in lower case, filled up or cut to a number of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from kind_core.console.quiet import without_import_noise
from kind_core.diffusers.layout import INDEX_NAME
from kind_core.errors import ConfigError, TargetError
from kind_core.files.hashing import hash_files
from kind_core.files.json_files import read_object
from kind_core.files.weight_files import find_misfit
from kind_core.text.folder import count_tokens
from kind_train.data.captions.request import ENCODER_NAME, TOKENIZER_NAME
from kind_train.data.captions.store_files import EncoderRecord

_HINT = "give the folder of a PixArt pipeline, as diffusers saves it with safe_serialization"


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
