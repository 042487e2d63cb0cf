"""How a cache of latents lies on the disk, and that nothing of it is missing or damaged.

    cache.json   index.safetensors   captions.json   shards/00000/{latents.npy, hashes.json} ...   autoencoder/

What does not fit is one line that names the file, before anything is trained on it or added to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from kind_core.autoencoder import AUTOENCODER_NAME, find_weights, hash_copy, read_autoencoder
from kind_core.class_ids import require_distinct
from kind_core.classes import ClassInfo
from kind_core.config import AutoencoderConfig
from kind_core.errors import ClassNameError, ConfigError, DataError
from kind_core.files.json_files import read_object, read_texts
from kind_core.files.shards import list_numbered
from kind_core.files.staging import write_whole
from kind_core.files.weight_files import find_misfit, is_pointer
from kind_train.places import CACHE_NAME as CACHE_NAME
from kind_train.places import is_cache as is_cache

INDEX_NAME = "index.safetensors"
CAPTIONS_NAME = "captions.json"
SHARDS_NAME = "shards"
LATENTS_NAME = "latents.npy"
HASHES_NAME = "hashes.json"
FORMAT_VERSION = 1

_AGAIN = "copy it anew, or make the cache again with --force"
_KINDS: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,), "float": (int, float)}
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheSettings:
    """What decides the bytes of a cache: a resumed one must share it. `size` is the side of the photos in pixels."""

    autoencoder: AutoencoderConfig
    autoencoder_sha256: str
    size: int
    flip: bool
    shard_rows: int

    @property
    def row_shape(self) -> tuple[int, int, int, int]:
        """(ways, channels, size, size) of what is stored of a photo, the channels of any number."""
        side = self.size // self.autoencoder.downscale
        return (2 if self.flip else 1), -1, side, side


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheFile:
    """`cache.json`: how the latents were made, and the classes by label."""

    settings: CacheSettings
    classes: tuple[ClassInfo, ...]
    finished: bool


def read_cache_file(folder: Path) -> CacheFile:
    """`cache.json` of a cache; raises DataError."""
    file = folder / CACHE_NAME
    data = read_object(file, DataError, _AGAIN)
    version = data.get("format_version")
    if version != FORMAT_VERSION:
        raise DataError(f"{file} has format_version {version!r}, this program reads {FORMAT_VERSION}", _AGAIN)
    if not isinstance(data.get("finished"), bool):
        raise DataError(f"{file} has finished {data.get('finished')!r}, expected true or false", _AGAIN)
    settings = _as_object(data.get("settings"), "settings", file)
    autoencoder = _build(AutoencoderConfig, _as_object(settings.get("autoencoder"), "autoencoder", file), file)
    return CacheFile(
        settings=_build(CacheSettings, {**settings, "autoencoder": autoencoder}, file),
        classes=_read_classes(data.get("classes"), file),
        finished=data["finished"],
    )


def write_cache_file(folder: Path, cache: CacheFile) -> None:
    """Write `cache.json`."""
    data = {
        "format_version": FORMAT_VERSION,
        "finished": cache.finished,
        "settings": asdict(cache.settings),
        "classes": [{"id": info.id, "names": list(info.names)} for info in cache.classes],
    }
    write_whole(folder / CACHE_NAME, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def _as_object(value: object, name: str, file: Path) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise DataError(f"{file} has {name} {value!r:.60}, expected an object", _AGAIN)
    return value


def _build(kind: type[_T], data: Mapping[str, object], file: Path) -> _T:
    """A dataclass of the values that `file` holds; raises DataError for a missing, unknown or mistyped one."""
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    unknown = next((name for name in data if name not in known), None)
    if unknown is not None:
        raise DataError(f"{file} has a setting {unknown!r} that this program does not know", _AGAIN)
    for name, field in known.items():
        if name not in data:
            if field.default is MISSING:
                raise DataError(f"{file} has no setting {name!r}", _AGAIN)
            continue
        types, value = _KINDS.get(str(field.type)), data[name]
        is_right = types is None or (isinstance(value, types) and (bool in types) == isinstance(value, bool))
        if not is_right or (isinstance(value, int) and value < 0):
            raise DataError(f"{file} has {name} {value!r:.60}, expected another kind of value", _AGAIN)
    try:
        return kind(**data)
    except ConfigError as error:
        raise DataError(f"{file}: {error.message}", _AGAIN) from error


def _read_classes(data: object, file: Path) -> tuple[ClassInfo, ...]:
    if not isinstance(data, list) or not data:
        raise DataError(f"{file} has classes {data!r:.60}, expected a list", _AGAIN)
    for one in data:
        names = one.get("names") if isinstance(one, dict) else None
        if not isinstance(names, list) or not all(isinstance(text, str) for text in (one.get("id"), *names)):
            raise DataError(f"{file} has a class {one!r:.60}, expected an id and names", _AGAIN)
    try:
        classes = tuple(ClassInfo(id=one["id"], names=tuple(one["names"])) for one in data)
        require_distinct(classes)
    except ClassNameError as error:
        raise DataError(f"{file}: {error.message}", _AGAIN) from error
    if len({info.id for info in classes}) < len(classes):
        raise DataError(f"{file} has two classes with one id", _AGAIN)
    return classes


def list_shards(folder: Path) -> list[Path]:
    """The shards of a cache in their order; raises DataError where one is missing."""
    return list_numbered(folder / SHARDS_NAME, DataError, _AGAIN)


def _mend(shard: Path) -> str:
    return f"copy it anew, or remove {shard} and the shards after it and run kind-train cache with --resume"


def open_shard(shard: Path, settings: CacheSettings) -> np.ndarray:
    """The latents of a shard, mapped and not read: fp16 (rows, ways, channels, size, size)."""
    file = shard / LATENTS_NAME
    if not file.is_file():
        raise DataError(f"there is no {file}", _mend(shard))
    if is_pointer(file):
        raise DataError(f"{file} is a Git LFS pointer, not the data", "git lfs pull brings it")
    try:
        latents: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, OverflowError) as error:
        raise DataError(f"{file} is damaged: {' '.join(str(error).split())}", _mend(shard)) from error
    ways, _, *sides = settings.row_shape
    shape = latents.shape
    is_right = len(shape) == 5 and shape[1] == ways and list(shape[3:]) == sides and shape[2] > 0
    if latents.dtype != np.float16 or not is_right or not 1 <= shape[0] <= settings.shard_rows:
        raise DataError(
            f"{file} holds {latents.dtype} of shape {shape}, expected float16 of shape "
            f"(up to {settings.shard_rows}, {ways}, channels, {sides[0]}, {sides[1]})",
            _mend(shard),
        )
    return latents


def open_shards(folder: Path, settings: CacheSettings) -> list[np.ndarray]:
    """The latents of all shards; all but the last are full."""
    places = list_shards(folder)
    shards = [open_shard(place, settings) for place in places]
    for place, latents in zip(places, shards, strict=True):
        if latents.shape[1:] != shards[0].shape[1:] or (place != places[-1] and len(latents) < settings.shard_rows):
            message = f"{place / LATENTS_NAME} holds latents of shape {latents.shape}"
            raise DataError(f"{message}, which do not go with the other shards", _mend(place))
    return shards


def read_hashes(shard: Path, count: int) -> list[str]:
    """sha256 of the pixels of each of the `count` photos of a shard."""
    file = shard / HASHES_NAME
    hashes = read_texts(file, DataError, _mend(shard)) if file.is_file() else None
    if hashes is None or len(hashes) != count:
        raise DataError(f"{file} is damaged or missing, expected the hashes of {count} photos", _mend(shard))
    return hashes


def read_index(folder: Path, num_latents: int, classes: Sequence[ClassInfo]) -> tuple[Tensor, Tensor]:
    """The latent and the label of each photo, long (n,) both; every class has a photo."""
    file = folder / INDEX_NAME
    try:
        if file.is_file() and is_pointer(file):
            raise DataError(f"{file} is a Git LFS pointer, not the data", "git lfs pull brings it")
        index = load_file(file) if file.is_file() else {}
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{file} is damaged: {error}", _AGAIN) from error
    rows, labels = index.get("rows"), index.get("labels")
    if rows is None or labels is None or rows.shape != labels.shape or rows.dim() != 1 or not len(rows):
        raise DataError(f"{file} is damaged or missing, expected rows and labels of the same length", _AGAIN)
    for name, values, count in (("rows", rows, num_latents), ("labels", labels, len(classes))):
        if values.dtype != torch.int64 or int(values.min()) < 0 or int(values.max()) >= count:
            held = f"{values.dtype} from {values.min()} to {values.max()}"
            raise DataError(f"{file} has {name} of {held}, expected whole numbers from 0 to {count - 1}", _AGAIN)
    present = set(labels.tolist())
    absent = next((info for label, info in enumerate(classes) if label not in present), None)
    if absent is not None:
        raise DataError(f"{file} has no photo of class {absent.name!r}", _AGAIN)
    return rows, labels


def read_captions(folder: Path, count: int) -> tuple[str, ...]:
    """The captions of the `count` photos of a cache; none where it was made without."""
    file = folder / CAPTIONS_NAME
    if not file.exists():
        return ()
    captions = read_texts(file, DataError, _AGAIN)
    if not all(captions) or len(captions) != count:
        raise DataError(f"{file} is damaged, expected the captions of {count} photos", _AGAIN)
    return tuple(captions)


def write_captions(folder: Path, captions: Sequence[str] | None) -> None:
    """Keep the captions of all photos beside the index, or none."""
    if captions is None:
        (folder / CAPTIONS_NAME).unlink(missing_ok=True)
        return
    write_whole(folder / CAPTIONS_NAME, json.dumps(captions, ensure_ascii=False))


def check_autoencoder(folder: Path, settings: CacheSettings) -> None:
    """Raise DataError where the autoencoder that made the latents does not lie beside them, whole."""
    place = folder / AUTOENCODER_NAME
    hint = f"copy the autoencoder of the cache into {place}"
    try:
        found = read_autoencoder(place)
        misfit = find_misfit(find_weights(place))
    except (ConfigError, SafetensorError, OSError) as error:
        reason = error.message if isinstance(error, ConfigError) else f"{find_weights(place)} is damaged: {error}"
        raise DataError(f"the cache {folder} has lost its autoencoder: {reason}", hint) from error
    if misfit is not None:
        raise DataError(f"{find_weights(place)} {misfit}", hint)
    if differs_in_scale(settings.autoencoder, found):
        raise DataError(
            f"{folder / CACHE_NAME} says {_describe_scale(settings.autoencoder)}, but its autoencoder means "
            f"{_describe_scale(found)}, as diffusers reads it: latents would be off by that",
            "run the same kind-train cache command with --resume: it corrects the file, nothing is encoded again",
        )
    if found != settings.autoencoder:
        raise DataError(f"{place} holds {found}, but the latents were made by {settings.autoencoder}", hint)
    if (sha256 := hash_copy(place)) != settings.autoencoder_sha256:
        raise DataError(
            f"{place} has weights of sha256 {sha256[:12]}..., but the latents were made by "
            f"{settings.autoencoder_sha256[:12]}...",
            hint,
        )


def differs_in_scale(held: AutoencoderConfig, meant: AutoencoderConfig) -> bool:
    """Whether two configs differ in what is applied to latents when they are read, and in nothing that is stored."""
    same = replace(held, scaling_factor=meant.scaling_factor, shift_factor=meant.shift_factor)
    return held != meant and same == meant


def _describe_scale(config: AutoencoderConfig) -> str:
    shift = f" and shift_factor {config.shift_factor:g}" if config.shift_factor else ""
    return f"scaling_factor {config.scaling_factor:g}{shift}"
