"""The decomposed checkpoint: config.json, learngene.safetensors and one file a tailor. safetensors only, no pickle.

config.json   learngene.safetensors   tailors/<class id>.safetensors
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from kind_core.autoencoder import ImageDecoder, copy_autoencoder, find_autoencoder, load_decoder
from kind_core.checkpoint_config import (
    AUTOENCODER_NAME,
    CONFIG_NAME,
    LEARNGENE_NAME,
    TAILORS_NAME,
    WEIGHTS_NAME,
    is_checkpoint_file,
    read_any_config,
)
from kind_core.checkpoint_config import hash_learngene as hash_learngene  # also from here, with the rest
from kind_core.checkpoint_config import read_config as read_config
from kind_core.class_ids import require_distinct
from kind_core.classes import ClassInfo
from kind_core.config import ModelConfig
from kind_core.dit import DivertedTransformer, KindDiT
from kind_core.errors import CheckpointError
from kind_core.files.hashing import hash_files
from kind_core.files.staging import folder_kind, staged
from kind_core.files.tensor_files import write_tensors
from kind_core.files.weight_files import find_misfit
from kind_core.flops import count_parameters
from kind_core.naming import fold_text
from kind_core.sampling import to_images
from kind_core.tailors import class_shapes

_Model = TypeVar("_Model", bound=DivertedTransformer)
_SMALLEST = 2  # bytes of a stored parameter: fp16
_CHEAP = 4_000_000  # parameters that may be allocated to say which tensor is of another shape


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Checkpoint:
    """A loaded checkpoint. `config` and `model` hold the asked classes only; `sha256` covers exactly the files read.

    `decoder` makes images of latents, where the model does not work on pixels.
    """

    config: ModelConfig
    model: KindDiT
    sha256: str
    decoder: ImageDecoder | None = None

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (batch, channels, size, size) as RGB images in [0, 1], (batch, 3, height, width)."""
        if self.decoder is None:
            return to_images(latents)
        # one at a time: an autoencoder needs far more memory than the model
        return torch.cat([to_images(self.decoder(one)) for one in torch.split(latents, 1)])

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, classes: Sequence[str] | None = None, **options: Any) -> Self:
        """From a folder or a repository of the Hub; see `kind_core.hub.from_pretrained`."""
        from kind_core import hub

        loaded = hub.from_pretrained(name_or_path, classes, **options)
        return cls(config=loaded.config, model=loaded.model, sha256=loaded.sha256, decoder=loaded.decoder)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        force: bool = False,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **options: Any,
    ) -> None:
        """To a folder, and with `push_to_hub` to the Hub as `repo_id`, by default the folder's name."""
        path = Path(save_directory)
        autoencoder = None if self.decoder is None else self.decoder.folder
        save_checkpoint(path, self.config, self.model, dtype=dtype, autoencoder=autoencoder, force=force)
        if push_to_hub:
            self.push_to_hub(repo_id or path.name, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """To a repository of the Hub, with a model card; see `kind_core.hub.push_to_hub`. Returns its address."""
        from kind_core import hub

        return hub.push_to_hub(self, repo_id, **options)

    def __repr__(self) -> str:
        from kind_core.console.notebook import describe_checkpoint

        return describe_checkpoint(self.config)

    def _repr_html_(self) -> str:
        from kind_core.console.notebook import render_checkpoint

        return render_checkpoint(self)


def load_checkpoint(path: Path, classes: Sequence[int] | None = None, *, with_decoder: bool = True) -> Checkpoint:
    """Load the learngene and the tailors of `classes` (indices into the config, all by default), in fp32.

    Class i of the returned model is `classes[i]`. `with_decoder`: a model of latents comes with its autoencoder. Raises
    CheckpointError naming file and tensor for anything missing, of another shape, not finite or cut short.
    """
    full = read_config(path)
    chosen = list(range(full.dit.num_classes)) if classes is None else list(classes)
    config = subset_config(full, chosen)
    # a dense model has no tailors, its counter takes no number of classes
    learngene = count_parameters(config.dit, classes=None if config.dit.is_dense else 0, labels=0).total
    model = load_weights(path, config, lambda: KindDiT(config.dit), learngene)
    decoder = read_decoder(path, config) if with_decoder else None
    return Checkpoint(config=config, model=model, sha256=hash_loaded(path, config, decoder), decoder=decoder)


def load_weights(path: Path, config: ModelConfig, make: Callable[[], _Model], num_parameters: float) -> _Model:
    """The model that `make` builds with the weights of the classes of `config`; see `load_checkpoint`.

    `num_parameters` are those of its learngene: a file that is too small for them is refused before it is built.
    """
    _require_own_files(path, config.classes)
    _require_bytes(path, config, num_parameters)
    model = make()
    state = _read_tensors(path / LEARNGENE_NAME, {k: tuple(v.shape) for k, v in model.learngene_state().items()})
    model.load_state_dict(state, strict=False)
    for index, info in enumerate(config.classes):
        model.tailors.load_class(index, _read_tensors(tailor_path(path, info.id), class_shapes(config.dit, index)))
    return model.eval()


def read_decoder(path: Path, config: ModelConfig) -> ImageDecoder | None:
    """What makes images of latents, where the model does not work on pixels."""
    if config.autoencoder is None:
        return None
    return load_decoder(find_autoencoder(path), config.autoencoder, config.dit.in_channels)


def hash_loaded(path: Path, config: ModelConfig, decoder: ImageDecoder | None) -> str:
    """sha256 of the files that were read."""
    files = [path / CONFIG_NAME, path / LEARNGENE_NAME, *(tailor_path(path, info.id) for info in config.classes)]
    return hash_files([*files, *([] if decoder is None else [decoder.folder / WEIGHTS_NAME])])


def save_checkpoint(
    path: Path,
    config: ModelConfig,
    model: DivertedTransformer,
    *,
    dtype: torch.dtype = torch.float32,
    autoencoder: Path | None = None,
    force: bool = False,
) -> None:
    """Write a checkpoint folder, whole or not at all; a model of latents with the folder of its `autoencoder`.

    Without that folder it still trains and exports with --latents-only, but decodes nothing.
    """
    require_distinct(config.classes)
    with staged(path, CHECKPOINT, force=force) as folder:
        (folder / TAILORS_NAME).mkdir(parents=True)
        write_config(folder / CONFIG_NAME, config)
        write_tensors(folder / LEARNGENE_NAME, _cast(model.learngene_state(), dtype))
        for index, info in enumerate(config.classes):
            write_tensors(tailor_path(folder, info.id), _cast(model.tailors.state_of(index), dtype))
        if autoencoder is not None:
            copy_autoencoder(autoencoder, folder / AUTOENCODER_NAME)


def write_config(file: Path, config: ModelConfig) -> None:
    """Write the `config.json` of a checkpoint."""
    file.write_text(json.dumps(config.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


CHECKPOINT = folder_kind("a checkpoint", read_any_config, is_checkpoint_file, heart=CONFIG_NAME)


def subset_config(config: ModelConfig, classes: Sequence[int]) -> ModelConfig:
    """The config of a model that knows only `classes`, in that order."""
    ranks = tuple(config.dit.ranks[i] for i in classes)
    dit = replace(config.dit, num_classes=len(classes), tailor_ranks=None if config.dit.tailor_ranks is None else ranks)
    return replace(config, dit=dit, classes=tuple(config.classes[i] for i in classes))


def tailor_path(path: Path, class_id: str) -> Path:
    """Where the tailor of a class lies in a checkpoint folder; some archivers take accents and letters apart (NFD)."""
    file, parted = (
        path / TAILORS_NAME / f"{unicodedata.normalize(form, class_id)}.safetensors" for form in ("NFC", "NFD")
    )
    return parted if parted.exists() and not file.exists() else file


def _require_own_files(path: Path, classes: Sequence[ClassInfo]) -> None:
    """Raise CheckpointError where this file system took two tailors for one, as Windows and macOS take `A` for `a`."""
    seen: dict[str, ClassInfo] = {}
    for info in classes:
        other = seen.setdefault(fold_text(info.id), info)
        file, its = tailor_path(path, info.id), tailor_path(path, other.id)
        if other.id != info.id and file.exists() and its.exists() and file.samefile(its):
            raise CheckpointError(
                f"{file} is the tailor of {info.id!r} and of {other.id!r}, which are one name on this file system",
                "copy the checkpoint from Linux with one of the two renamed, also in config.json",
            )


def hash_checkpoint(path: Path) -> str:
    """sha256 of a whole checkpoint, as `load_checkpoint` has it for all classes of a model of pixels."""
    try:
        return hash_loaded(path, read_config(path), None)
    except OSError as error:
        raise CheckpointError(f"cannot read {error.filename}: {error.strerror}", "copy the checkpoint again") from error


def _require_bytes(path: Path, config: ModelConfig, learngene: float) -> None:
    """Raise CheckpointError where the files are too small for what config.json says: before that is allocated."""
    wanted = {path / LEARNGENE_NAME: learngene}
    for index, info in enumerate(config.classes):
        shapes = class_shapes(config.dit, index).values()
        wanted[tailor_path(path, info.id)] = sum(math.prod(shape) for shape in shapes)
    for file, num_parameters in wanted.items():
        with _reading(file):
            misfit, size = find_misfit(file), file.stat().st_size
        if misfit is not None:
            raise CheckpointError(f"{file} {misfit}", "download it again")
        if num_parameters > _CHEAP and size < _SMALLEST * num_parameters:
            raise CheckpointError(
                f"{file} has {size} bytes, too few for the {num_parameters:.3g} parameters of {path / CONFIG_NAME}",
                "download the checkpoint again",
            )


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """What safetensors and the file system say of a file, as a CheckpointError."""
    try:
        yield
    except FileNotFoundError as error:
        hint = "download the whole checkpoint, or ask for classes whose tailor file is there"
        raise CheckpointError(f"missing file {file}", hint) from error
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{file} is not a whole safetensors file: {error}", "download it again") from error


def _read_tensors(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    with _reading(file):
        tensors = load_file(file)
    for name, shape in shapes.items():
        if name not in tensors:
            raise CheckpointError(f"{file} has no tensor {name!r}, expected shape {list(shape)}")
        if tuple(tensors[name].shape) != shape:
            raise CheckpointError(f"{file}: {name!r} has shape {list(tensors[name].shape)}, expected {list(shape)}")
        if not tensors[name].isfinite().all():
            raise CheckpointError(f"{file}: {name!r} holds NaN or infinity, expected finite numbers")
    unexpected = sorted(set(tensors) - set(shapes))
    if unexpected:
        raise CheckpointError(f"{file} has a tensor {unexpected[0]!r} that the config does not expect")
    return {name: tensors[name].float() for name in shapes}


def _cast(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}
