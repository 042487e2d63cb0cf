"""What a user asks of an export, checked before any heavy work."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kind_core.errors import ConfigError, TargetError

Precision = Literal["fp32", "fp16", "int8", "int4", "palette6", "palette4"]

MAX_GUIDANCE = 100.0
TARGETS = ("coreml", "onnx", "executorch")
PRECISIONS = ("fp32", "fp16", "int8", "int4", "palette6", "palette4")
MIN_IOS = (17, 18)
BAKING_MODES = ("auto", "on", "off")
SAMPLERS = ("ddim", "dpmpp", "euler")  # those of kind_core.schedule, which imports torch


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportRequest:
    """One export. None means the checkpoint's (steps, sampler, guidance) or the target's (precision) default."""

    classes: tuple[str, ...]
    targets: tuple[str, ...]
    checkpoint: Path
    output: Path | None = None
    steps: int | None = None
    sampler: str | None = None
    guidance: float | None = None
    precision: Precision | None = None
    min_ios: int = 17
    baking: str = "auto"
    blends: tuple[tuple[str, ...], ...] = ()
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    max_rank: int | None = None
    energy: float | None = None
    packs: bool = False
    base: Path | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if not self.classes and not self.blends:
            raise ConfigError("no class was asked for", "add --classes NAME; kind-export classes lists them")
        if self.base is not None:
            self._check_packs_only()
        elif not self.targets:
            raise ConfigError("no target was asked for", "add --target coreml, onnx, executorch or all")
        parse_targets(self.targets)
        if self.precision is not None:
            _require_choice("precision", self.precision, PRECISIONS)
        if self.sampler is not None:
            _require_choice("sampler", self.sampler, SAMPLERS)
        _require_choice("min-ios", self.min_ios, MIN_IOS)
        _require_choice("baking", self.baking, BAKING_MODES)
        if self.packs and self.baking == "off":
            raise ConfigError("packs hold a modulation table, but baking is 'off'", "leave out --baking or --packs")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"steps is {self.steps}, expected 1 or more")
        if self.guidance is not None and not (math.isfinite(self.guidance) and abs(self.guidance) <= MAX_GUIDANCE):
            raise ConfigError(f"guidance is {self.guidance}, expected a finite number up to {MAX_GUIDANCE:g}")
        self._check_shortcuts()

    def _check_shortcuts(self) -> None:
        low, high = self.guidance_interval
        if not 0 <= low < high <= 1:
            raise ConfigError(
                f"guidance-interval is {low:g},{high:g}, expected two shares of the steps from 0 to 1, the lower first",
                "for example --guidance-interval 0.2,0.8",
            )
        if self.max_rank is not None and self.max_rank < 1:
            raise ConfigError(f"max-rank is {self.max_rank}, expected 1 or more")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise ConfigError(f"energy is {self.energy:g}, expected a share above 0 up to 1", "for example 0.99")
        if self.packs and self.blends:
            raise ConfigError("--blend goes with built-in classes, not with --packs", "leave one of them out")

    def _check_packs_only(self) -> None:
        """Packs for an existing base: it has its targets and its sampling already."""
        if not self.packs:
            raise ConfigError("a base was given, but no packs were asked for", "add --packs")
        given = {
            "target": self.targets or None,
            "steps": self.steps,
            "sampler": self.sampler,
            "guidance": self.guidance,
            "precision": self.precision,
            "max-rank": self.max_rank,
            "energy": self.energy,
            "guidance-interval": self.guidance_interval if self.guidance_interval != (0.0, 1.0) else None,
        }
        name = next((name for name, value in given.items() if value is not None), None)
        if name is not None:
            raise ConfigError(f"--{name} goes with a new base only; this one has its own", "leave it out")


def parse_targets(names: Sequence[str]) -> list[str]:
    """`all` or target names, each once and in a fixed order; raises TargetError for an unknown one."""
    for name in names:
        if name not in (*TARGETS, "all"):
            raise TargetError(f"unknown target {name!r}, expected {', '.join(TARGETS)} or all", "use --target NAME")
    return [target for target in TARGETS if target in names or "all" in names]


def parse_blends(texts: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """`panda+koala` as class names; raises ConfigError for a blend of fewer than two."""
    blends = tuple(tuple(part.strip() for part in text.split("+")) for text in texts)
    for text, names in zip(texts, blends, strict=True):
        if len(names) < 2 or not all(names):
            raise ConfigError(f"blend {text!r} does not name two classes", "for example --blend panda+koala")
    return blends


def parse_interval(text: str | None) -> tuple[float, float]:
    """`lo,hi` as two numbers; all steps where there is no text."""
    if text is None:
        return 0.0, 1.0
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"guidance-interval is {text!r}, expected two numbers from 0 to 1 with a comma between",
            "for example --guidance-interval 0.2,0.8",
        ) from error
    return low, high


def _require_choice(name: str, value: object, allowed: Collection[object]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(map(str, allowed))}")
