"""What a smaller dense model is asked for, checked before anything heavy is loaded. No torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kind_core.config import DiTConfig
from kind_core.errors import ConfigError
from kind_train.config import CONSTRUCTIONS

# Table 1: 10 of 12 and 19 of 24 blocks, 7 of 12 and 13 of 24.
_SHARES = {"heur-lg": 0.8, "auto-lg": 0.55, "laptop-diff": 0.55}


@dataclass(frozen=True, kw_only=True, slots=True)
class ShrinkRequest:
    """A dense checkpoint, how it is made smaller, and to how many `blocks` (the paper's share by default).

    `data` are the photos, or the cache of latents, on which `laptop-diff` measures what each block does.
    """

    source: Path
    output: Path
    construction: str
    blocks: int | None = None
    data: str | None = None
    seed: int = 0
    device: str = "cpu"
    force: bool = False

    def __post_init__(self) -> None:
        if self.construction not in CONSTRUCTIONS:
            raise ConfigError(f"construction is {self.construction!r}, expected one of {', '.join(CONSTRUCTIONS)}")

    def require_depth(self, dit: DiTConfig) -> int:
        """How many blocks are kept; raises ConfigError for a model that cannot be made smaller so."""
        if not dit.is_dense:
            raise ConfigError(
                f"{self.source} is decomposed, shrink takes blocks out of a dense model",
                "a decomposed model is cut by its gates: kind-export --classes; or train a dense one: "
                "--preset dit-sample",
            )
        if dit.block_embedders:
            raise ConfigError(f"{self.source} has embedders in every block, shrink takes models that have one")
        blocks = round(dit.depth * _SHARES[self.construction]) if self.blocks is None else self.blocks
        if not 1 <= blocks < dit.depth:
            raise ConfigError(f"blocks is {blocks}, expected 1 to {dit.depth - 1}: the model has {dit.depth}")
        if self.construction == "laptop-diff" and self.data is None:
            raise ConfigError("laptop-diff measures blocks on photos, none are given", "add --data")
        return blocks
