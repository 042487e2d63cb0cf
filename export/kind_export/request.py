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
    packs: bool = False
    base: Path | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if not self.classes:
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
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"steps is {self.steps}, expected 1 or more")
        if self.guidance is not None and not (math.isfinite(self.guidance) and abs(self.guidance) <= MAX_GUIDANCE):
            raise ConfigError(f"guidance is {self.guidance}, expected a finite number up to {MAX_GUIDANCE:g}")

    def _check_packs_only(self) -> None:
        """Packs for an existing base: it has its targets and its sampling already."""
        if not self.packs:
            raise ConfigError("a base was given, but no packs were asked for", "add --packs")
        given = {"target": self.targets, "steps": self.steps, "sampler": self.sampler, "precision": self.precision}
        name = next((name for name, value in given.items() if value), None)
        if name is not None:
            raise ConfigError(f"--{name} goes with a new base only; this one has its own", "leave it out")


def parse_targets(names: Sequence[str]) -> list[str]:
    """`all` or target names, each once and in a fixed order; raises TargetError for an unknown one."""
    for name in names:
        if name not in (*TARGETS, "all"):
            raise TargetError(f"unknown target {name!r}, expected {', '.join(TARGETS)} or all", "use --target NAME")
    return [target for target in TARGETS if target in names or "all" in names]


def _require_choice(name: str, value: object, allowed: Collection[object]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(map(str, allowed))}")
