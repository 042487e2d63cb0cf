"""Where the parts of a diffusers folder lie. No torch is loaded."""

from __future__ import annotations

from pathlib import Path

from kind_core.errors import CheckpointError, ConfigError
from kind_core.files.near_paths import suggest_path

INDEX_NAME = "model_index.json"


def find_transformer(path: Path) -> Path:
    """The folder of the transformer, `path` itself or in it; raises CheckpointError where it is no diffusers folder."""
    if (path / INDEX_NAME).is_file():
        return path / "transformer"
    if (path / "config.json").is_file():
        return path
    raise CheckpointError(
        f"{path} is no diffusers folder: it has neither {INDEX_NAME} nor config.json",
        "give the folder of a DiT pipeline, or of its transformer",
    )


def require_settings(folder: Path) -> Path:
    """The settings of the autoencoder in `folder`; raises ConfigError where there are none."""
    file = folder / "config.json"
    if not file.is_file():
        hint = f"give a folder with config.json and weights, as diffusers saves it{suggest_path(folder)}"
        raise ConfigError(f"no autoencoder at {folder}: there is no {file}", hint)
    return file
