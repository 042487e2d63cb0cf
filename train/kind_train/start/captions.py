"""Whether embedded captions go with the model that is adapted. No torch is loaded."""

from __future__ import annotations

from pathlib import Path

from kind_core.config import TextConfig
from kind_core.errors import ConfigError
from kind_train.config import TrainConfig
from kind_train.data.captions.store_files import read_record


def check_text(config: TrainConfig, text: TextConfig | None) -> None:
    """Raise ConfigError or DataError where the captions of a run are not those that its base reads, if it reads any."""
    if text is None:
        if config.text_embeddings is not None:
            raise ConfigError(
                f"{config.base} draws classes, but captions were given: {config.text_embeddings}",
                "leave out --text-embeddings, or give --checkpoint a model of captions",
            )
        return
    if config.text_embeddings is None:
        raise ConfigError(
            f"{config.base} draws from captions, but no embedded captions were given",
            "embed those of the data once (kind-train embed), and add --text-embeddings",
        )
    record = read_record(Path(config.text_embeddings))
    if record.channels != text.channels or record.tokens > text.tokens:
        raise ConfigError(
            f"{config.text_embeddings} holds up to {record.tokens} words of {record.channels} channels "
            f"({record.name}), {config.base} reads up to {text.tokens} of {text.channels}",
            "embed the captions with the text encoder of that model",
        )
