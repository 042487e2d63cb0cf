"""Options that go together or not: what of a recipe suits the model, told before any data is read."""

from __future__ import annotations

from pathlib import Path

from kind_core.checkpoint_config import read_config
from kind_core.errors import ConfigError
from kind_train.class_guidance import scale_of_each
from kind_train.config import TrainConfig, check_timesteps
from kind_train.evaluate.features import find_packages
from kind_train.evaluate.networks import CLASSIFIER_HINT, require_file
from kind_train.places import is_cache
from kind_train.start.shape import Shape


def check_recipe(config: TrainConfig, shape: Shape) -> None:
    """Raise ConfigError, naming both options, where one does not go with what is trained, or with the device."""
    from kind_train.device import pick_device, require_arithmetic

    check_options(config, shape)
    if config.match_classifier is not None:
        from kind_train.evaluate.small_classifier import read_classifier

        read_classifier(Path(config.match_classifier)).require_size(shape.dit.sample_size)
    require_arithmetic(config.precision, pick_device(config.device), is_compiled=config.compile)


def check_options(config: TrainConfig, shape: Shape) -> None:
    """The same without the device, which torch alone knows: no torch is loaded."""
    terms = {name: getattr(config, name) for name in ("perceptual", "repa", "match_photos") if getattr(config, name)}
    for name, weight in terms.items():
        if shape.dit.in_channels != 3 or is_cache(config.data):
            raise ConfigError(
                f"{name} is {weight:g}, but {_describe(config)} is of latents: the term looks at pictures",
                f"leave out --{name.replace('_', '-')}, or train on photos with --preset sample",
            )
    if terms:
        find_packages()
    if config.match_classifier is not None:
        require_file(Path(config.match_classifier), "--match-classifier", CLASSIFIER_HINT)
    if config.teacher is not None and config.class_guidance:
        scale_of_each(config.class_guidance, read_config(Path(config.teacher)).classes, 1.0)
    check_timesteps(shape.diffusion, timestep_mean=config.timestep_mean, timestep_std=config.timestep_std)


def _describe(config: TrainConfig) -> str:
    if is_cache(config.data):
        return f"data {config.data}"
    return f"preset {config.preset_name!r}" if config.base is None else f"checkpoint {config.base}"
