"""A folder of diffusers with a class-conditional DiT, read as a dense checkpoint.

    model_index.json   transformer/   scheduler/   vae/          as facebook/DiT-XL-2-256, or transformer/ alone

Weights are safetensors, or a pickle that is loaded as weights only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from kind_core.autoencoder import read_autoencoder
from kind_core.checkpoint import Checkpoint, subset_config
from kind_core.classes import ClassInfo
from kind_core.config import AutoencoderConfig, DiffusionConfig, DiTConfig, ModelConfig
from kind_core.diffusers.component import Component, load_component, read_component, shorten
from kind_core.diffusers.dit import from_diffusers, read_architecture
from kind_core.diffusers.layout import INDEX_NAME, find_transformer
from kind_core.diffusers.schedule import GUIDANCE_SCALE, read_diffusion
from kind_core.dit import KindDiT
from kind_core.errors import CheckpointError, ConfigError, KindError
from kind_core.files.hashing import hash_files
from kind_core.files.json_files import read_object

if TYPE_CHECKING:
    from diffusers import DiTTransformer2DModel

AUTOENCODER_FOLDER = "vae"
_WEIGHTS = "diffusion_pytorch_model*"
_TRANSFORMER = "DiTTransformer2DModel"
_TRANSFORMERS = dict.fromkeys((_TRANSFORMER, "Transformer2DModel"), _TRANSFORMER)  # what older folders call it
_MAX_LABELS = 100_000
_ONLY_DIT = "only class-conditional DiT is read; a PixArt by kind-train init --from-pixart"
_MAX_DIFFERENCE = 1e-4  # of the range of the output: what two orders of summation leave in fp32


def read_diffusers_config(path: Path) -> ModelConfig:
    """The config of a folder: every label a class, by its number and by the names of `id2label`."""
    index = read_index(path)
    transformer = _read_transformer(path)
    require_named(index, path, "transformer", _TRANSFORMERS)
    num_labels = transformer.values["num_embeds_ada_norm"]
    if num_labels is None or not 1 <= num_labels <= _MAX_LABELS:
        message = f"{transformer.file} has num_embeds_ada_norm {num_labels}, expected 1 to {_MAX_LABELS} labels"
        raise CheckpointError(message, _ONLY_DIT)
    return ModelConfig(
        dit=_read_architecture(transformer, num_labels),
        diffusion=read_folder_diffusion(path, index),
        classes=_read_classes(index, path, num_labels),
        autoencoder=read_folder_autoencoder(path / AUTOENCODER_FOLDER, index),
    )


def read_index(path: Path) -> dict[str, object]:
    """What a pipeline's folder says of its parts; nothing of a transformer alone."""
    return read_object(path / INDEX_NAME, CheckpointError) if (path / INDEX_NAME).exists() else {}


def load_diffusers(path: Path, classes: Sequence[int] | None = None) -> Checkpoint:
    """The dense model of `classes` (label numbers, all by default), in fp32, proven equal to diffusers' own.

    Raises CheckpointError for a folder that holds another network, or none.
    """
    full = read_diffusers_config(path)
    chosen = list(range(full.dit.num_classes)) if classes is None else list(classes)
    transformer = load_component(_read_transformer(path), "transformer")
    model = from_diffusers(transformer, chosen)
    _require_equal(model, transformer, chosen, path)
    # the weights alone tell whether every block has embedders of its own
    config = replace(subset_config(full, chosen), dit=model.config)
    return Checkpoint(config=config, model=model, sha256=hash_files(list_files(path)))


@torch.no_grad()
def _require_equal(model: KindDiT, transformer: DiTTransformer2DModel, classes: Sequence[int], path: Path) -> None:
    """Raise CheckpointError where the converted model answers otherwise than diffusers' for a class or for null."""
    config = model.config
    shape = (2, config.in_channels, config.sample_size, config.sample_size)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    timesteps, null = torch.tensor([10.0, 900.0]), transformer.config.num_embeds_ada_norm
    theirs = transformer(latents, timesteps, torch.tensor([classes[-1], null])).sample
    labels = torch.tensor([len(classes) - 1, -1])
    difference = float((model(latents, timesteps, labels, labels) - theirs).abs().max())
    require_close(path, difference, float(theirs.max() - theirs.min()))


def require_close(path: Path, difference: float, span: float) -> None:
    """Raise CheckpointError where the largest difference of two outputs is more than rounding of that span."""
    limit = _MAX_DIFFERENCE * span
    if not difference <= limit:
        raise CheckpointError(
            f"{path}: the converted model differs from diffusers' by {difference:.3g}, expected {limit:.3g} or less",
            "please report which model it is",
        )


def _read_transformer(path: Path) -> Component:
    return read_component(find_transformer(path) / "config.json", _TRANSFORMERS, hint=_ONLY_DIT)


def _read_architecture(transformer: Component, num_labels: int) -> DiTConfig:
    try:
        return read_architecture(transformer.values, num_labels)
    except KindError as error:
        message = f"{transformer.file}: {error.message}; it says {transformer.describe()}"
        raise type(error)(message, error.hint) from error


def read_folder_diffusion(path: Path, index: Mapping[str, object]) -> DiffusionConfig:
    """The schedule of the folder; of a transformer alone DiT's own: linear, epsilon."""
    file = path / "scheduler" / "scheduler_config.json"
    if not index and not file.exists():
        return DiffusionConfig(guidance_scale=GUIDANCE_SCALE)
    kind, diffusion = read_diffusion(file)
    require_named(index, path, "scheduler", (kind,))
    return diffusion


def require_named(index: Mapping[str, object], path: Path, name: str, kinds: Iterable[str]) -> None:
    """Raise CheckpointError where the pipeline takes a component for another class than its own settings do."""
    entry = index.get(name)
    if entry is not None and (not isinstance(entry, list) or len(entry) != 2 or entry[1] not in list(kinds)):
        kind = next(iter(kinds))
        message = f"{path / INDEX_NAME} has {name} {shorten(entry)}, the folder {path / name} is of a {kind}"
        raise CheckpointError(message, "save the pipeline again with diffusers' save_pretrained")


def _read_classes(index: Mapping[str, object], path: Path, num_labels: int) -> tuple[ClassInfo, ...]:
    """Label n is class `n`; `id2label` of the pipeline has its names, with commas between."""
    known = index.get("id2label") or {}
    if not isinstance(known, dict) or not all(isinstance(text, str) for text in known.values()):
        raise ConfigError(f"{path / INDEX_NAME}: id2label is {shorten(known)}, expected names by number")
    classes = []
    for number in range(num_labels):
        names = tuple(name.strip() for name in known.get(str(number), "").split(",") if name.strip())
        classes.append(ClassInfo(id=str(number), names=names or (f"label {number}",)))
    return tuple(classes)


def read_folder_autoencoder(
    folder: Path, index: Mapping[str, object] = MappingProxyType({})
) -> AutoencoderConfig | None:
    """That of the pipeline that `index` describes, or of a folder that nothing describes."""
    if not (folder / "config.json").is_file():
        if index.get(AUTOENCODER_FOLDER) not in (None, [None, None]):  # how diffusers names what is left out
            message = f"{folder.parent / INDEX_NAME} names a {AUTOENCODER_FOLDER}, but {folder} has no config.json"
            raise CheckpointError(message, f"download the folder {AUTOENCODER_FOLDER} too")
        return None
    config = read_autoencoder(folder, with_weights=False)  # of the Hub, the settings may be here alone
    if config.shift_factor:
        message = f"{folder / 'config.json'} has shift_factor {config.shift_factor:g}, which DiTPipeline leaves out"
        raise ConfigError(message, "set it to 0 where the model was trained without it")
    require_named(index, folder.parent, AUTOENCODER_FOLDER, (config.kind,))
    return config


def list_files(path: Path) -> list[Path]:
    """What the hash of a folder's checkpoint covers, in a fixed order."""
    folder = find_transformer(path)
    found = [path / INDEX_NAME, path / "scheduler" / "scheduler_config.json", folder / "config.json"]
    return [file for file in (*found, *sorted(folder.glob(_WEIGHTS))) if file.is_file()]
