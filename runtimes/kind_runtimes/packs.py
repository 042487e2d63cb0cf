"""Packs: one class as a download, a safetensors file that attaches to the base it was made for.

`tailor` (1, width), `modulation_basis` (rank, rows * hidden) and `modulation_coefficients` (steps, rank), all float16;
in the file's metadata, under `pack`, JSON: format_version, base, class id and names. `base` is the hash that the
manifest of the bundle holds as `pack_base`. A step program takes the tensors as inputs; all zero is no class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
from safetensors import SafetensorError, safe_open

from kind_core.classes import ClassInfo, read_class
from kind_core.errors import BundleError, ClassNameError
from kind_core.files.json_files import parse_json
from kind_core.files.litter import is_hidden
from kind_core.files.staging import file_kind
from kind_core.files.weight_files import POINTER, find_misfit, is_pointer
from kind_runtimes.documents.manifest import ClassEntry
from kind_runtimes.manifest import PACK_SUFFIX, PACKS_FOLDER, Manifest, TensorSpec, refuse_newer

PACK_VERSION = 1
PACK_TENSORS = ("tailor", "modulation_basis", "modulation_coefficients")
_METADATA_KEY = "pack"


# what the metadata of a pack says
PackDocument = TypedDict("PackDocument", {"format_version": int, "base": str, "class": ClassEntry})


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """A class as its file holds it. `name` is the file's, for errors."""

    name: str
    info: ClassInfo
    base: str
    tensors: Mapping[str, np.ndarray]


def read_pack(file: Path) -> Pack:
    """Read a pack; raises BundleError for what is missing, damaged, newer or no pack."""
    data, tensors = _read(file, PACK_TENSORS)
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise BundleError(f"{file}: {name!r} holds NaN or infinity, expected finite numbers", "download it again")
    return Pack(name=str(file), info=_parse_info(data, file), base=data["base"], tensors=tensors)


def read_pack_info(file: Path) -> ClassInfo:
    """The class of a pack, without its tensors."""
    data, _ = _read(file, ())
    return _parse_info(data, file)


PACK = file_kind("a pack", read_pack_info)


def encode_metadata(info: ClassInfo, base: str) -> dict[str, str]:
    """The metadata of a pack file. One key: safetensors writes several in no fixed order."""
    data = {"format_version": PACK_VERSION, "base": base, "class": {"id": info.id, "names": list(info.names)}}
    return {_METADATA_KEY: json.dumps(data, ensure_ascii=False)}


def check_pack(pack: Pack, manifest: Manifest) -> None:
    """Raise BundleError unless `pack` was made for the base of this bundle."""
    if manifest.pack_base is None:
        held = ", ".join(c.name for c in manifest.classes)
        raise BundleError(f"the bundle takes no packs: {held} is built in", "export a base with kind-export --packs")
    if pack.base != manifest.pack_base:
        raise BundleError(
            f"{pack.name} is a pack for base {pack.base[:12]}..., this bundle is base {manifest.pack_base[:12]}...",
            "take the pack that was exported for this base, or update the base with the app",
        )


def pack_inputs(pack: Pack | None, specs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    """The inputs of `specs` that a pack fills, in their dtype; zeros where there is none, the learngene alone."""
    wanted = [spec for spec in specs if spec.name in PACK_TENSORS]
    if pack is None:
        return {spec.name: np.zeros(spec.shape, spec.dtype) for spec in wanted}
    for spec in wanted:
        shape = pack.tensors[spec.name].shape
        if shape != spec.shape:
            raise BundleError(
                f"{pack.name}: {spec.name!r} has shape {list(shape)}, the base takes {list(spec.shape)}",
                "download the pack again",
            )
    return {spec.name: pack.tensors[spec.name].astype(spec.dtype) for spec in wanted}


def find_packs(folder: Path) -> dict[Path, ClassInfo]:
    """The packs that lie in a bundle folder, by file name."""
    files = sorted((folder / PACKS_FOLDER).glob(f"*{PACK_SUFFIX}"))
    return {file: read_pack_info(file) for file in files if not is_hidden(file.name)}


def _read(file: Path, names: Sequence[str]) -> tuple[PackDocument, dict[str, np.ndarray]]:
    if not file.is_file():
        raise BundleError(f"there is no pack {file}", "download it, or make one with kind-export --packs")
    try:
        if is_pointer(file):
            raise BundleError(f"{file} {POINTER}", "download it again, or make it with kind-export --packs")
        with safe_open(file, framework="numpy") as opened:
            data = _parse_metadata(opened.metadata(), file)
            misfit = find_misfit(file, ("F16",))
            if misfit is not None:
                raise BundleError(f"{file} {misfit}", "download it again, or make it with kind-export --packs")
            missing = next((name for name in names if name not in opened.keys()), None)  # noqa: SIM118
            if missing is not None:
                raise BundleError(f"{file} has no tensor {missing!r}", "download it again")
            return data, {name: opened.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{file} is not a whole pack: {error}", "download it again") from error


def _parse_metadata(metadata: Mapping[str, str] | None, file: Path) -> PackDocument:
    try:
        data = parse_json((metadata or {})[_METADATA_KEY])
        data["format_version"]  # which every pack has
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"{file} is not a pack: its metadata says nothing of one", "make one with kind-export"
        ) from error
    refuse_newer(data, PACK_VERSION, str(file), BundleError)
    if not isinstance(data.get("base"), str):
        raise BundleError(f"{file} does not say which base it fits", "export it again")
    return cast(PackDocument, data)


def _parse_info(data: PackDocument, file: Path) -> ClassInfo:
    try:
        return read_class(data.get("class"))
    except ClassNameError as error:
        raise BundleError(f"{file} does not say which class it holds", "export it again") from error
