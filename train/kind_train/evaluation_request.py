"""What an evaluation is asked for, and how its pictures are drawn, checked before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kind_core.config.checks import require_number
from kind_core.errors import ConfigError
from kind_core.samplers import ALL_STEPS, check_interval


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawSettings:
    """How pictures are drawn; None is what the checkpoint or the bundle has. `device`: where a checkpoint runs."""

    seed: int = 0
    device: str = "cpu"
    steps: int | None = None
    guidance: float | None = None
    guidance_interval: tuple[float, float] = ALL_STEPS


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRequest:
    """What to measure: a checkpoint, or a bundle in one of its runtimes.

    `data` were trained on, `val_data` were not; against statistics of real photos neither is read.
    `device`: where a checkpoint draws, its autoencoder decodes, and classifier and networks run.
    `count` pictures a class; `cross_count` for each pair of the cross-class check, of neighbours only or of all pairs.
    `classifier`: a file of `kind-train classifier`, which then judges in place of EfficientNet-Lite2.
    `inception_weights` and `dinov2` are the paths of `InceptionV3` and `DinoV2`; None looks into the caches of their
    libraries, "none" leaves them out.
    """

    data: Path | None = None
    val_data: Path | None = None
    checkpoint: Path | None = None
    bundle: Path | None = None
    runtime: str | None = None
    classes: tuple[str, ...] = ()
    count: int = 200
    cross_count: int = 50
    cross_matrix: bool = False
    seed: int = 0
    device: str = "cpu"
    steps: int | None = None
    guidance: float | None = None
    guidance_interval: tuple[float, float] = ALL_STEPS
    classifier: Path | None = None
    inception_weights: str | None = None
    dinov2: str | None = None

    def __post_init__(self) -> None:
        check_interval(self.guidance_interval)
        if (self.checkpoint is None) == (self.bundle is None):
            raise ConfigError("expected one of --checkpoint and --bundle", "measure one after the other")
        if self.bundle is None and self.runtime is not None:
            raise ConfigError(f"runtime is {self.runtime!r}, but a checkpoint has none", "give --bundle")
        if self.bundle is not None and self.device != "cpu":
            raise ConfigError(f"device is {self.device!r}, but a bundle runs in its own runtime", "leave it out")
        if self.count < 2 or self.cross_count < 0:
            raise ConfigError(f"count is {self.count} and cross_count {self.cross_count}, expected 2 and 0 or more")
        require_drawing(self.seed, self.guidance)


def require_drawing(seed: int, guidance: float | None) -> None:
    """Raise ConfigError for a seed that no picture starts from, and for a guidance scale that is no number."""
    from kind_core.noise import picture_seed

    picture_seed(seed, 0)
    if guidance is not None:
        require_number("guidance", guidance)
