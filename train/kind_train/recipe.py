"""Options that go together or not: what of a recipe suits the model, told before any data is read."""

from __future__ import annotations

from kind_train.config import TrainConfig
from kind_train.objective import check_timesteps
from kind_train.shape import Shape


def check_recipe(config: TrainConfig, shape: Shape) -> None:
    """Raise ConfigError, naming both options, where one does not go with what is trained."""
    check_timesteps(shape.diffusion, timestep_mean=config.timestep_mean, timestep_std=config.timestep_std)
