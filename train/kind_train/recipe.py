"""Options that go together or not: what of a recipe suits the model, told before any data is read."""

from __future__ import annotations

from kind_train.config import TrainConfig, check_timesteps
from kind_train.device import pick_device, require_arithmetic
from kind_train.evaluate.features import find_packages
from kind_train.start.shape import Shape, require_pictures


def check_recipe(config: TrainConfig, shape: Shape) -> None:
    """Raise ConfigError, naming both options, where one does not go with what is trained."""
    require_pictures(config, shape)
    if config.perceptual:
        find_packages()
    require_arithmetic(config.precision, pick_device(config.device), is_compiled=config.compile)
    check_timesteps(shape.diffusion, timestep_mean=config.timestep_mean, timestep_std=config.timestep_std)
