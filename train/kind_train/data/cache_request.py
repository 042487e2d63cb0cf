"""What `kind-train cache` is asked for, checked before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kind_core.config.checks import require_positive
from kind_core.errors import ConfigError
from kind_train.config import MAX_BATCH_SIZE, MAX_SIDE

SHARD_ROWS = 4096


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
