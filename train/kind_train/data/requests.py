"""What `kind-train cache` and `kind-train embed` are asked for, checked before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kind_core.config.checks import require_positive
from kind_core.errors import ConfigError
from kind_core.files.near_paths import suggest_path
from kind_train.config import MAX_BATCH_SIZE, MAX_SIDE

SHARD_ROWS = 4096
ENCODER_NAME, TOKENIZER_NAME = "text_encoder", "tokenizer"
_MOST_TOKENS = 4096
_HINT = "give the folder of a PixArt pipeline, as diffusers saves it"


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheRequest:
    """What to encode. `size` is the side of the photos in pixels, a multiple of what the autoencoder divides it by;
    with `captions` those of the photos are kept, for a model that draws from captions."""

    data: str
    autoencoder: Path
    output: Path
    size: int = 256
    classes: tuple[str, ...] = ()
    flip: bool = True
    batch_size: int = 16
    device: str = "auto"
    strict: bool = False
    captions: bool = False
    resume: bool = False
    force: bool = False
    shard_rows: int = SHARD_ROWS

    def __post_init__(self) -> None:
        require_positive("size", self.size, MAX_SIDE)
        require_positive("batch_size", self.batch_size, MAX_BATCH_SIZE)
        require_positive("shard_rows", self.shard_rows)
        if self.resume and self.force:
            raise ConfigError("--resume and --force exclude each other", "continue the cache, or replace it")


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedRequest:
    """Whose captions are embedded, the photos' at `data` or the one `caption`, by the encoder in a pipeline's folder.

    `tokens` are how many words at most are kept of a caption, by default what the pipeline reads.
    """

    text_encoder: Path
    output: Path
    data: str | None = None
    caption: str | None = None
    classes: tuple[str, ...] = ()
    tokens: int | None = None
    batch_size: int = 16
    device: str = "auto"
    resume: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        require_positive("batch_size", self.batch_size, MAX_BATCH_SIZE)
        if self.tokens is not None:
            require_positive("tokens", self.tokens, _MOST_TOKENS)
        if (self.data is None) == (self.caption is None):
            raise ConfigError("expected one of --data and --caption", "give the photos, or the caption of a drawing")
        if self.caption is not None and (self.resume or self.classes):
            raise ConfigError("--resume and --classes are for --data, not for --caption", "leave them out")
        if self.resume and self.force:
            raise ConfigError("--resume and --force exclude each other", "continue the cache, or replace it")

    def require_encoder(self) -> None:
        """Raise ConfigError where no text encoder lies in the folder."""
        for file in (f"{ENCODER_NAME}/config.json", f"{TOKENIZER_NAME}/tokenizer_config.json"):
            if not (self.text_encoder / file).is_file():
                message = f"no text encoder at {self.text_encoder}: there is no {self.text_encoder / file}"
                raise ConfigError(message, f"{_HINT}{suggest_path(self.text_encoder)}")
