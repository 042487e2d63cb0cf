"""What a start from a trained DiT, and a smaller dense model, are asked for. No torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from kind_core.class_ids import parse_class_names
from kind_core.config import DiTConfig, preset
from kind_core.config.checks import require_seed
from kind_core.diffusers.layout import find_transformer
from kind_core.errors import ConfigError
from kind_core.files.staging import check_free
from kind_core.hub import HUB_PREFIX, find_diffusers
from kind_train.config import CONSTRUCTIONS

TailorStart = Literal["strongest", "dealt", "random"]
# Table 1: 10 of 12 and 19 of 24 blocks, 7 of 12 and 13 of 24.
_SHARES = {"heur-lg": 0.8, "auto-lg": 0.55, "laptop-diff": 0.55}


@dataclass(frozen=True, kw_only=True, slots=True)
class InitRequest:
    """Which DiT (a folder or a name of the Hub), which ranks, which of its classes (all by default).

    `is_pixart`: it is a PixArt, which knows no classes: `domains` are what its tailors will be of.
    """

    source: Path
    output: Path
    preset: str | None = None
    learngene_rank: int | None = None
    tailor_rank: int | None = None
    classes: tuple[str, ...] = ()
    tailors: TailorStart = "strongest"
    seed: int = 0
    force: bool = False
    is_pixart: bool = False
    domains: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_domains()
        require_seed(self.seed)
        if self.tailors not in get_args(TailorStart):
            raise ConfigError(f"tailors is {self.tailors!r}, expected one of {', '.join(get_args(TailorStart))}")
        ranks = (self.learngene_rank, self.tailor_rank)
        if (self.preset is None) == (ranks == (None, None)):
            raise ConfigError("the ranks come from a preset or from both ranks", "give --preset, or both ranks instead")
        if self.preset is None and None in ranks:
            raise ConfigError("one of the two ranks is missing", "give --learngene-rank and --tailor-rank")

    def _check_domains(self) -> None:
        if not self.is_pixart:
            if self.domains:
                message = f"domains are those of a PixArt, given were {', '.join(self.domains)}"
                raise ConfigError(message, "with --from-dit name its --classes")
            return
        if self.classes:
            message = f"a PixArt has no classes, asked for {', '.join(self.classes)}"
            raise ConfigError(message, "name the domains that it is to be trained on: --domains")
        if self.preset is not None:
            raise ConfigError(
                f"preset {self.preset!r} is of a DiT, not of a PixArt", "give --learngene-rank and --tailor-rank"
            )
        if None in (self.learngene_rank, self.tailor_rank):
            raise ConfigError("the ranks of a PixArt are in no preset", "give --learngene-rank and --tailor-rank")
        if not self.domains:
            raise ConfigError("no domain was named, and every tailor is of one", "for example --domains photo,sketch")
        parse_class_names(self.domains)

    def check_places(self) -> None:
        """Raise the KindError that the start would end with, as far as its preset, source and output tell it."""
        check_free(self.output, force=self.force)
        if self.preset is not None:
            preset(self.preset)
        if not self.source.as_posix().startswith(HUB_PREFIX):
            find_transformer(find_diffusers(self.source, is_whole=False))


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
