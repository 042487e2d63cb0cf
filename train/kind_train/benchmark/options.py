"""What `kind-train benchmark` is asked for. No torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kind_core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkOptions:
    """The options of the command by their names; None and an empty tuple are not given.

    What is of suites that train alone has its default here: one that draws refuses it.
    """

    output: Path
    scale: str = "small"
    checkpoint: Path | None = None
    sample: str | None = None
    dense: Path | None = None
    data: str | None = None
    val_data: str | None = None
    task_size: int | None = None
    tasks: Path | None = None
    base_data: str | None = None
    preset: str | None = None
    real: Path | None = None
    images: int | None = None
    batch_size: int | None = None
    count: int | None = None
    seeds: tuple[int, ...] = ()
    classifier: Path | None = None
    inception_weights: str | None = None
    dinov2: str | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    device: str = "cpu"
    cell: int | None = None
    resume: bool = False

    def choose_checkpoint(self) -> Path | None:
        """The checkpoint, or that of the sample, if one was given; raises ConfigError for both."""
        if self.sample is None:
            return self.checkpoint
        if self.checkpoint is not None:
            raise ConfigError("expected one of --checkpoint and --sample", "leave one out")
        from kind_samples import sample_checkpoint

        return sample_checkpoint(self.sample)
