"""What a user asks of an export, checked before any heavy work."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from kind_core.errors import ConfigError

MAX_GUIDANCE = 100.0


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
    precision: str | None = None
    min_ios: int = 17
    baking: str = "auto"
    force: bool = False

    def __post_init__(self) -> None:
        if not self.classes:
            raise ConfigError("no class was asked for", "add --classes NAME; kind-export classes lists them")
        if not self.targets:
            raise ConfigError("no target was asked for", "add --target coreml, onnx, executorch or all")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"steps is {self.steps}, expected 1 or more")
        if self.guidance is not None and not (math.isfinite(self.guidance) and abs(self.guidance) <= MAX_GUIDANCE):
            raise ConfigError(f"guidance is {self.guidance}, expected a finite number up to {MAX_GUIDANCE:g}")
