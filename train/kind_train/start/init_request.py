"""What a start from a trained DiT is asked for, checked before anything heavy is loaded. No torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from kind_core.class_ids import parse_class_names
from kind_core.config import preset
from kind_core.config.checks import require_seed
from kind_core.diffusers.layout import find_transformer
from kind_core.errors import ConfigError
from kind_core.files.staging import check_free
from kind_core.hub import HUB_PREFIX, find_diffusers

TailorStart = Literal["strongest", "dealt", "random"]


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
