"""Packs of further classes for a base that is already out.

Nothing is lowered; every pack is verified in the base's own runtimes.
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from kind_core.checkpoint import Checkpoint
from kind_core.classes import resolve_classes
from kind_core.config import DiffusionConfig
from kind_core.errors import BundleError, ConfigError
from kind_core.files.staging import check_output, claimed, staged
from kind_core.schedule import SamplerTable, read_sampler_table
from kind_export.bundle.packs import hash_base, pack_names, write_pack
from kind_export.job import require_tailors
from kind_export.request import ExportRequest
from kind_export.rewrites import rewrite_base
from kind_export.rewrites.detach_classes import DetachedClass
from kind_export.source import open_source, require_base
from kind_export.stages import READING, OnStage, Stages
from kind_export.verify.gates import Verifier
from kind_export.verify.parity import Parity
from kind_export.verify.reference import Reference
from kind_runtimes.bundle import BUNDLE, open_bundle
from kind_runtimes.generator import open_generator
from kind_runtimes.manifest import PACK_SUFFIX, PACKS_FOLDER, Manifest
from kind_runtimes.packs import PACK, read_pack, read_pack_info

_OTHER_CHECKPOINT = "give the checkpoint that the base was exported from: the same learngene and architecture"


@dataclass(frozen=True, kw_only=True, slots=True)
class PacksResult:
    """The packs written, in the order of the classes, and what was measured of each, by target."""

    files: tuple[Path, ...]
    parities: dict[str, Parity]
    notes: tuple[str, ...]


def export_packs(request: ExportRequest, on_stage: OnStage = lambda stage: None) -> PacksResult:
    """Write a pack a class that fits `request.base`; raises a KindError and leaves nothing behind otherwise."""
    assert request.base is not None
    folder = request.output or request.base / PACKS_FOLDER
    is_inside = request.base.is_dir() and folder.resolve().is_relative_to(request.base.resolve())
    with claimed(request.base, BUNDLE) if is_inside else nullcontext():
        return _export_packs(request, request.base, folder, on_stage)


def _export_packs(request: ExportRequest, path: Path, folder: Path, on_stage: OnStage) -> PacksResult:
    manifest = open_bundle(path).manifest
    source = open_source(request)
    config = source.config
    resolved = resolve_classes(request.classes, config.classes)
    files = tuple(folder / name for name in pack_names([c.info for c in resolved], _list_held(manifest, folder)))
    for file in files:
        check_output(file, PACK, force=request.force)
    stages = Stages(on_stage)
    stages.expect([*READING, *(f"verifying {name}" for name in manifest.targets)])
    stages.begin("reading the checkpoint")
    checkpoint = source.load([c.index for c in resolved])
    sampler = _read_sampler(request, config.diffusion, manifest)
    base, classes = _detach(request, source.path, checkpoint, sampler, manifest, require_tailors(config))
    stages.begin("running the eager model")
    reference = Reference(checkpoint=checkpoint, sampling=manifest.sampling)
    verifier = Verifier(
        reference,
        is_approximate="rank_truncation_error" in manifest.data.get("rewrites", {}),
        hint="export a base in a higher --precision or with more of its ranks, or the class built in",
    )
    with ExitStack() as stack:
        drafts = [stack.enter_context(staged(file, PACK, force=request.force)) for file in files]
        for draft, info, detached in zip(drafts, checkpoint.config.classes, classes, strict=True):
            write_pack(draft, info, detached, base)
        packs = [read_pack(draft) for draft in drafts]
        parities = {}
        for name, target in manifest.targets.items():
            stages.begin(f"verifying {name}")
            parities[name] = verifier.check(open_generator(path, manifest, name), target, packs)
    return PacksResult(files=files, parities=parities, notes=tuple(c.note for c in resolved if c.note))


def _list_held(manifest: Manifest, folder: Path) -> dict[str, str]:
    """Class ids by file name: the packs that the base was exported with, and those that lie in `folder`."""
    held = {Path(pack.file).name: pack.info.id for pack in manifest.packs}
    for file in folder.glob(f"*{PACK_SUFFIX}"):
        with suppress(BundleError):  # what is no pack is nobody's class
            held[file.name] = read_pack_info(file).id
    return held


def _read_sampler(request: ExportRequest, config: DiffusionConfig, manifest: Manifest) -> SamplerTable:
    """The sampler of the base; raises BundleError where the checkpoint does not go with it, so is another's."""
    try:
        return read_sampler_table(config, manifest.sampling.sampler, manifest.sampling.steps)
    except ConfigError as error:
        raise BundleError(
            f"{request.base} is no base of the checkpoint {request.checkpoint}: {error.message}", _OTHER_CHECKPOINT
        ) from error


def _detach(
    request: ExportRequest,
    path: Path,
    checkpoint: Checkpoint,
    sampler: SamplerTable,
    manifest: Manifest,
    tailor_rank: int,
) -> tuple[str, tuple[DetachedClass, ...]]:
    """The hash of the base and the classes in its form; raises BundleError where the checkpoint is another's."""
    expected = require_base(manifest, path)
    inputs = next(iter(manifest.targets.values())).programs["step"].inputs
    table_rank = next((spec.shape[0] for spec in inputs if spec.name == "modulation_basis"), None)
    if table_rank is None:
        raise BundleError(f"{request.base} is a base, but its step has no input for a pack", "export it again")
    compact, classes = rewrite_base(checkpoint.model, sampler, tailor_rank, table_rank)
    base = hash_base(path, checkpoint.config, manifest.sampling.sampler, compact)
    if base != expected:
        raise BundleError(
            f"the checkpoint {request.checkpoint} gives base {base[:12]}..., {request.base} is base {expected[:12]}...",
            _OTHER_CHECKPOINT,
        )
    return base, classes
