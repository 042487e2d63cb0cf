"""What a bundle says of itself: the manifest, written once, when its programs have been run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import cast

from kind_core.checkpoint import Checkpoint
from kind_core.classes import ClassInfo
from kind_core.files.hashing import hash_file
from kind_export.blending import Opening
from kind_export.compact.model import CompactModel
from kind_export.job import ExportJob
from kind_export.rewrites import describe_rewrites
from kind_export.target_rows import TARGET_ROWS
from kind_export.targets.lowering import Written
from kind_export.targets.programs import latents_shape
from kind_export.verify.parity import Parity
from kind_runtimes.bundle import MANIFEST_NAME, list_files
from kind_runtimes.documents.manifest import ClassEntry, EngineVersions, ManifestDocument, PackEntry, TargetEntry
from kind_runtimes.engines.versions import describe_versions
from kind_runtimes.manifest import FORMAT_VERSION, NOISE_GENERATOR, Manifest, describe_program, parse_manifest


def write_manifest(folder: Path, data: ManifestDocument) -> Manifest:
    """Say in `folder` what lies there, as `make_manifest` has it: written last."""
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
    return parse_manifest(text, MANIFEST_NAME)


def make_manifest(
    folder: Path,
    job: ExportJob,
    checkpoint: Checkpoint,
    compact: CompactModel,
    lowered: Mapping[str, Written],
    parities: Mapping[str, Parity],
    base: str | None = None,
    packs: Sequence[PackEntry] = (),
) -> ManifestDocument:
    """What lies in `folder`, with the hash of every file, and how well it was verified.

    Of a base, `base` is its hash and `packs` what `write_packs` says.
    """
    data = _describe_bundle(job, checkpoint, compact, base, packs)
    data["targets"] = {name: _describe_target(one, parities[name]) for name, one in lowered.items()}
    for name, parity in parities.items():
        for pack, psnr_db in zip(packs, parity.class_psnr_db, strict=False):
            pack.setdefault("trajectory_psnr_db", {})[name] = round(psnr_db, 2)
    data["files"] = {
        name: {"sha256": hash_file(folder / name), "size_bytes": (folder / name).stat().st_size}
        for name in list_files(folder)
    }
    return data


def _describe_bundle(
    job: ExportJob, checkpoint: Checkpoint, compact: CompactModel, base: str | None, packs: Sequence[PackEntry]
) -> ManifestDocument:
    """What all targets of a bundle have in common; what says nothing is left out."""
    tools = sorted({tool for name in job.targets for tool in TARGET_ROWS[name].tools} | {"diffusers"})
    config, sampling, request = checkpoint.config, job.sampling, job.request
    distillation, training = config.diffusion.distillation, config.training
    guided, source = sampling.guided_steps, {"checkpoint_sha256": checkpoint.sha256}
    limits = {"max_rank": request.max_rank, "energy": request.energy}
    cut = {name: value for name, value in limits.items() if value is not None}
    described = {
        "format_version": 1 if distillation is None else FORMAT_VERSION,
        "name": job.output.name.removesuffix(".kind") or job.output.name,
        "classes": [
            _describe_class(info, opening, job) for info, opening in zip(config.classes, job.openings, strict=True)
        ],
        "pack_base": base,
        "packs": list(packs) or None,
        "steps": sampling.steps,
        "sampler": sampling.sampler,
        "guidance_scale": sampling.guidance_scale,
        "guidance_interval": None if guided is None else list(sampling.guidance_interval),
        "guided_steps": None if guided is None else list(guided),
        # no program needs to know the teacher
        "distillation": None if distillation is None else replace(distillation, teacher=None).to_dict(),
        "initial_noise_scale": sampling.initial_noise_scale,
        "latents_shape": list(latents_shape(compact)),
        "noise_generator": NOISE_GENERATOR,
        "source": source if training is None else {**source, "training": training.to_dict()},
        "tools": {tool: version(tool) for tool in (*tools, "kind-diffusion")},
        "rewrites": describe_rewrites(compact) | ({"cut": cut} if cut else {}),
    }
    return cast(ManifestDocument, {name: value for name, value in described.items() if value is not None})


def _describe_target(written: Written, parity: Parity) -> TargetEntry:
    return {
        "precision": written.spec.precision,
        "programs": {name: describe_program(one) for name, one in written.spec.programs.items()},
        "lowering": written.facts,
        "engine": cast(EngineVersions, describe_versions(written.spec.target)),
        "parity": parity.to_dict(),
    }


def _describe_class(info: ClassInfo, opening: Opening, job: ExportJob) -> ClassEntry:
    """A class as the manifest writes it; a blend names its parts."""
    parts = {"blend_of": [job.classes[position].info.id for position in opening]} if len(opening) > 1 else {}
    return cast(ClassEntry, {"id": info.id, "names": list(info.names), **parts})
