"""Packs of a base: what ties them to it, and their files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors.torch import save

from kind_core.checkpoint_config import LEARNGENE_NAME
from kind_core.classes import ClassInfo
from kind_core.config import ModelConfig
from kind_core.errors import ExportError
from kind_core.files.hashing import hash_file
from kind_core.naming import fold_text, name_file
from kind_export.compact.model import CompactModel, LowRankTable
from kind_export.rewrites.detach_classes import DetachedClass
from kind_runtimes.documents.manifest import PackEntry
from kind_runtimes.manifest import PACK_SUFFIX, PACKS_FOLDER
from kind_runtimes.packs import PACK_TENSORS, encode_metadata

_LAYOUT = "kind-pack/1"  # of the tensors of a pack: another layout is another base
_CLASS_FIELDS = ("num_classes", "tailor_rank", "tailor_ranks")


def hash_base(checkpoint: Path, config: ModelConfig, sampler: str, base: CompactModel) -> str:
    """sha256 of all that a pack depends on: learngene, architecture, sampling and shapes; no class and no target."""
    assert isinstance(base.conditioning, LowRankTable), "a base has its table from detach_classes"
    data = {
        "layout": _LAYOUT,
        "learngene": hash_file(checkpoint / LEARNGENE_NAME),
        "architecture": {name: value for name, value in config.dit.to_dict().items() if name not in _CLASS_FIELDS},
        "sampler": sampler,
        "timesteps": base.sampler.timesteps.tolist(),
        "tailor_rank": base.pack_rank,
        "table_rank": base.conditioning.rank,
    }
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def write_packs(
    bundle: Path, infos: Sequence[ClassInfo], classes: Sequence[DetachedClass], base: str
) -> list[PackEntry]:
    """Write a pack a class into a bundle folder and describe them for its manifest."""
    (bundle / PACKS_FOLDER).mkdir()
    entries: list[PackEntry] = []
    for info, detached, name in zip(infos, classes, pack_names(infos), strict=True):
        file = bundle / PACKS_FOLDER / name
        write_pack(file, info, detached, base)
        entries.append(
            {
                "id": info.id,
                "names": list(info.names),
                "file": f"{PACKS_FOLDER}/{name}",
                "sha256": hash_file(file),
                "size_bytes": file.stat().st_size,
                "modulations_error_db": round(detached.error_db, 1),
            }
        )
    return entries


def write_pack(file: Path, info: ClassInfo, detached: DetachedClass, base: str) -> None:
    """Write one pack; raises ExportError for a number that fp16 cannot hold."""
    tensors = {name: getattr(detached, name).to(torch.float16).contiguous() for name in PACK_TENSORS}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ExportError(f"{name} of class {info.name!r} does not fit into fp16", "export it without --packs")
    file.write_bytes(save(tensors, metadata=encode_metadata(info, base)))


def pack_names(infos: Sequence[ClassInfo], taken: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """A file name for each class: its name, with its id where another class has that already.

    `taken` are the class ids of packs that are there, by file name.
    """
    owners = {fold_text(name): class_id for name, class_id in taken.items()}
    names: list[str] = []
    for info in infos:
        stems = (name_file(info.name), name_file(f"{info.name} {info.id}"), info.id, name_file(f"class {info.id}"))
        files = (f"{stem}{PACK_SUFFIX}" for stem in stems)
        names.append(next(file for file in files if owners.setdefault(fold_text(file), info.id) == info.id))
    return names
