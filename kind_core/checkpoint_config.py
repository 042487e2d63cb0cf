"""What a checkpoint folder holds, and what its `config.json` says, before any weight is read. No torch is loaded."""

from __future__ import annotations

from pathlib import Path

from kind_core.config import ModelConfig, TextConfig
from kind_core.errors import CheckpointError
from kind_core.files.hashing import hash_file
from kind_core.files.json_files import read_json
from kind_core.files.near_paths import suggest_path

CONFIG_NAME = "config.json"
LEARNGENE_NAME = "learngene.safetensors"
TAILORS_NAME = "tailors"
AUTOENCODER_NAME = "autoencoder"
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
AUTOENCODER_FILES = (f"{AUTOENCODER_NAME}/{CONFIG_NAME}", f"{AUTOENCODER_NAME}/{WEIGHTS_NAME}")


def is_checkpoint_file(name: str) -> bool:
    """Whether `save_checkpoint` writes a file of this name, relative to the checkpoint."""
    folder, _, rest = name.rpartition("/")
    return name in (CONFIG_NAME, LEARNGENE_NAME, *AUTOENCODER_FILES) or (
        folder == TAILORS_NAME and rest.endswith(".safetensors")
    )


def hash_learngene(path: Path) -> str:
    """sha256 of a checkpoint's learngene file: tailors fit the learngene they were trained beside, and no other."""
    try:
        return hash_file(path / LEARNGENE_NAME)
    except OSError as error:
        raise CheckpointError(f"cannot read {path / LEARNGENE_NAME}: {error.strerror}") from error


_OF_CAPTIONS = "kind-export captions takes it, kind-train adapt --text-embeddings trains on it"


def read_config(path: Path, *, of_captions: str = _OF_CAPTIONS) -> ModelConfig:
    """Read `config.json` of a checkpoint of classes; raises CheckpointError, also for a model of captions.

    So whatever knows nothing of captions refuses such a model; `read_text_config` reads it. `of_captions` is what to do
    with it instead.
    """
    config = read_any_config(path)
    if config.text is not None:
        raise CheckpointError(
            f"{path} draws from captions (a PixArt), expected a checkpoint that draws classes",
            f"{of_captions}; docs/guides/captions.md says more",
        )
    return config


def read_text_config(path: Path) -> tuple[ModelConfig, TextConfig]:
    """The same of a model of captions, and how it reads them; raises CheckpointError for any other."""
    config = read_any_config(path)
    if config.text is None:
        raise CheckpointError(
            f"{path} draws classes, expected a checkpoint that draws from captions",
            "make one of a PixArt: kind-train init --from-pixart",
        )
    return config, config.text


def read_any_config(path: Path) -> ModelConfig:
    """Read `config.json` of a checkpoint folder, whatever the model draws from; raises CheckpointError."""
    file = path / CONFIG_NAME
    if not path.is_dir():
        hint = f"a checkpoint is a folder that holds {CONFIG_NAME}{suggest_path(path)}"
        raise CheckpointError(f"no checkpoint folder at {path}", hint)
    try:
        data = read_json(file)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} has no {CONFIG_NAME}", "is it a checkpoint folder?") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} holds a {type(data).__name__}, expected an object")
    return ModelConfig.from_dict(data)
