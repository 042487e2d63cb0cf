"""What a bundle says of itself: the manifest, first without and then with what came from running its programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kind_core.checkpoint import Checkpoint
from kind_core.classes import ClassInfo
from kind_core.files.hashing import hash_file
from kind_core.samplers import Distillation, Sampling
from kind_export.blending import Opening
from kind_export.compact.model import CompactModel
from kind_export.job import ExportJob
from kind_export.request import ExportRequest
from kind_export.rewrites import describe_rewrites
from kind_export.targets.lowering import Written
from kind_export.targets.programs import latents_shape
from kind_export.targets.target import load_target
from kind_export.verify.parity import Parity
from kind_runtimes.bundle import MANIFEST_NAME, list_files
from kind_runtimes.engine_versions import describe_versions
from kind_runtimes.manifest import FORMAT_VERSION, NOISE_GENERATOR, Manifest, describe_program, parse_manifest


def draft_manifest(
    job: ExportJob,
    checkpoint: Checkpoint,
    compact: CompactModel,
    lowered: Mapping[str, Written],
    packs: dict[str, Any],
) -> Manifest:
    """The manifest without parity and hashes, which come from running what it describes."""
    tools = sorted({tool for name in lowered for tool in load_target(name).TOOLS} | {"diffusers"})
    config = checkpoint.config
    data: dict[str, Any] = {
        "format_version": FORMAT_VERSION if config.diffusion.distillation is not None else 1,
        "name": job.output.name.removesuffix(".kind") or job.output.name,
        "classes": [
            _describe_class(info, opening, job) for info, opening in zip(config.classes, job.openings, strict=True)
        ],
        **packs,
        "steps": job.sampling.steps,
        "sampler": job.sampling.sampler,
        "guidance_scale": job.sampling.guidance_scale,
        **_describe_interval(job.sampling),
        **_describe_distillation(config.diffusion.distillation),
        "initial_noise_scale": job.sampling.initial_noise_scale,
        "latents_shape": list(latents_shape(compact)),
        "noise_generator": NOISE_GENERATOR,
        "source": _describe_source(checkpoint),
        "tools": {tool: version(tool) for tool in (*tools, "kind-diffusion")},
        "rewrites": describe_rewrites(compact) | _describe_cut(job.request),
        "targets": {
            name: {
                "precision": one.spec.precision,
                "programs": {key: describe_program(p) for key, p in one.spec.programs.items()},
                "lowering": one.facts,
                "engine": describe_versions(name),
                "parity": {"verified_by": "", "threshold_db": 0, "trajectory_psnr_db": 0, "step_psnr_db": 0},
            }
            for name, one in lowered.items()
        },
        "files": {},
    }
    return parse_manifest(json.dumps(data), "the manifest draft")


def _describe_source(checkpoint: Checkpoint) -> dict[str, Any]:
    """Which weights, and how far they were trained where they say so."""
    training = checkpoint.config.training
    return {"checkpoint_sha256": checkpoint.sha256, **({} if training is None else {"training": training.to_dict()})}


def _describe_class(info: ClassInfo, opening: Opening, job: ExportJob) -> dict[str, Any]:
    """A class as the manifest writes it; a blend names its parts."""
    parts = {"blend_of": [job.classes[position].info.id for position in opening]} if len(opening) > 1 else {}
    return {"id": info.id, "names": list(info.names), **parts}


def _describe_cut(request: ExportRequest) -> dict[str, Any]:
    """The limits of rank that were asked for."""
    limits = {"max_rank": request.max_rank, "energy": request.energy}
    asked = {name: value for name, value in limits.items() if value is not None}
    return {"cut": asked} if asked else {}


def _describe_interval(sampling: Sampling) -> dict[str, Any]:
    """Which steps are guided, where it is not all of them."""
    if sampling.guided_steps is None:
        return {}
    return {"guidance_interval": list(sampling.guidance_interval), "guided_steps": list(sampling.guided_steps)}


def _describe_distillation(distillation: Distillation | None) -> dict[str, Any]:
    return {} if distillation is None else {"distillation": distillation.to_dict()}


def write_manifest(folder: Path, draft: Manifest, parities: Mapping[str, Parity]) -> Manifest:
    """The draft with the parities and the hash of every file that lies in `folder`; written there last."""
    data = json.loads(json.dumps(draft.data))
    for name, parity in parities.items():
        data["targets"][name]["parity"] = parity.to_dict()
        for pack, psnr_db in zip(data.get("packs", ()), parity.class_psnr_db, strict=False):
            pack.setdefault("trajectory_psnr_db", {})[name] = round(psnr_db, 2)
    data["files"] = {
        name: {"sha256": hash_file(folder / name), "size_bytes": (folder / name).stat().st_size}
        for name in list_files(folder)
    }
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
    return parse_manifest(text, MANIFEST_NAME)
