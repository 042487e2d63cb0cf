"""What lies at a path: a bundle, one of its programs found alone, or a pack; nothing is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kind_core.errors import BundleError
from kind_runtimes.about import parse_about
from kind_runtimes.bundle import CAPTIONS_NAME, MANIFEST_NAME, open_bundle, read_manifest
from kind_runtimes.engine_rows import ENGINES
from kind_runtimes.engines.runtime import describe_file
from kind_runtimes.manifest import PACK_SUFFIX, Manifest
from kind_runtimes.packs import read_pack

# The runtime that reads a program of each ending.
SUFFIXES = {one.suffix: one.name for one in ENGINES.values() if one.suffix}


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """`facts` by name, in the order in which they are shown; `note` is what a reader should know first, if anything."""

    kind: str
    path: Path
    size_bytes: int
    facts: Mapping[str, object] = field(default_factory=dict)
    note: str = ""


def inspect_path(path: Path) -> Inspection:
    """Read what is at `path`; raises BundleError for what is none of this project's or broken."""
    if (path / MANIFEST_NAME).is_file() or (path / CAPTIONS_NAME).is_file():
        return _inspect_bundle(path)
    if not path.exists():
        raise BundleError(f"there is no file or folder {path}", "give a bundle, a program of one, or a pack")
    if path.suffix == PACK_SUFFIX:
        return _inspect_pack(path)
    if path.suffix in SUFFIXES:
        return _inspect_program(path, SUFFIXES[path.suffix])
    known = ", ".join((*SUFFIXES, PACK_SUFFIX))
    raise BundleError(f"{path} is neither a bundle nor one of {known}", "give the folder that holds manifest.json")


def _inspect_program(path: Path, runtime: str) -> Inspection:
    found = describe_file(runtime, path)
    about = parse_about(found.texts)
    # a .pte file names no inputs, so what kind-export wrote goes first
    facts = about or {
        "inputs": [one.to_dict() for one in found.inputs],
        "outputs": [one.to_dict() for one in found.outputs],
    }
    note = "" if about else "the file does not describe itself: it is of another tool, or older"
    return Inspection(kind=ENGINES[runtime].file_kind, path=path, size_bytes=_measure(path), facts=facts, note=note)


def _inspect_pack(path: Path) -> Inspection:
    pack = read_pack(path)
    facts = {
        "class": {"id": pack.info.id, "names": list(pack.info.names)},
        "base": pack.base,
        "tensors": [{"name": n, "shape": list(t.shape), "dtype": str(t.dtype)} for n, t in pack.tensors.items()],
    }
    note = f"it attaches to the base {pack.base[:12]}..., whose manifest has that pack_base"
    return Inspection(kind="pack", path=path, size_bytes=_measure(path), facts=facts, note=note)


def _inspect_bundle(path: Path) -> Inspection:
    manifest = read_manifest(path)
    note = ""
    try:
        open_bundle(path)
    except BundleError as error:
        note = f"not as it was verified: {error.message}"
    return Inspection(kind="bundle", path=path, size_bytes=_measure(path), facts=_bundle_facts(manifest), note=note)


def _bundle_facts(manifest: Manifest) -> dict[str, object]:
    data = manifest.data
    targets = {
        name: {
            "precision": target.precision,
            "size_bytes": sum(e["size_bytes"] for f, e in data["files"].items() if f.startswith(f"{name}/")),
            "files": sorted({spec.file for spec in target.programs.values()}),
            "trajectory_psnr_db": data["targets"][name]["parity"]["trajectory_psnr_db"],
            "verified_by": data["targets"][name]["parity"]["verified_by"],
        }
        for name, target in manifest.targets.items()
    }
    packs = [{"name": p.info.name, "file": p.file, "size_bytes": p.size_bytes} for p in manifest.packs]
    return {
        "name": data["name"],
        "classes": [{"id": c.id, "names": list(c.names)} for c in manifest.classes],
        "steps": manifest.sampling.steps,
        "sampler": manifest.sampling.sampler,
        "guidance_scale": manifest.guidance_scale,
        **({} if manifest.distillation is None else {"distillation": manifest.distillation.to_dict()}),
        "latents_shape": list(manifest.latents_shape),
        "targets": targets,
        **({"packs": packs} if packs else {}),
        "checkpoint_sha256": data["source"]["checkpoint_sha256"],
        "tools": dict(data["tools"]),
    }


def _measure(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
