"""What a run trains: the architecture and schedule of a preset, or of the checkpoint that is adapted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from kind_core.checkpoint import read_config
from kind_core.class_ids import require_distinct
from kind_core.classes import ClassInfo
from kind_core.config import AutoencoderConfig, DiffusionConfig, DiTConfig, ModelConfig, on_schedule, preset
from kind_core.errors import ConfigError
from kind_train.config import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A model before its classes are known; the number of classes in `dit` says nothing."""

    dit: DiTConfig
    diffusion: DiffusionConfig
    autoencoder: AutoencoderConfig | None = None

    def on_latents(self, autoencoder: AutoencoderConfig, sample_size: int) -> Shape:
        """The same model on the latents of `autoencoder`, of another size where they are."""
        return replace(self, dit=replace(self.dit, sample_size=sample_size), autoencoder=autoencoder)

    def with_classes(self, classes: tuple[ClassInfo, ...]) -> ModelConfig:
        """The config of a model of this shape."""
        require_distinct(classes)
        dit = replace(self.dit, num_classes=len(classes), tailor_ranks=None)
        return ModelConfig(dit=dit, diffusion=self.diffusion, classes=classes, autoencoder=self.autoencoder)


def pick_shape(config: TrainConfig) -> Shape:
    """The shape that the options ask for; raises ConfigError where it cannot be trained or adapted."""
    if config.base is None:
        dit, diffusion = preset(config.preset)
        if config.noise_schedule is not None:
            diffusion = on_schedule(diffusion, config.noise_schedule)
        return Shape(dit=dit, diffusion=diffusion)
    base = read_config(Path(config.base))
    if base.dit.is_dense:
        raise ConfigError(
            f"{config.base} is dense, so it has no tailors to adapt",
            "train it with kind-train fit --start-from",
        )
    rank = max(base.dit.ranks) if config.tailor_rank is None else config.tailor_rank
    dit = replace(base.dit, tailor_rank=max(rank, 1), tailor_ranks=None)
    return Shape(dit=dit, diffusion=base.diffusion, autoencoder=base.autoencoder)
