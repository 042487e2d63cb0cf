"""The whole export, top to bottom: checkpoint -> compose and rewrite -> lower -> verify -> report -> bundle.

`export_bundle` is the one to read. Everything is written into a staging folder that takes the bundle's place only when
every check has passed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kind_bench.counting import count_bundle
from kind_bench.measure.quick import time_bundle
from kind_core.checkpoint import Checkpoint
from kind_core.errors import BudgetError, KindError
from kind_core.files.staging import staged
from kind_core.files.temporaries import temporaries_beside
from kind_core.schedule import SamplerTable, read_sampler_table
from kind_export.bundle.golden import write_golden, write_preview
from kind_export.bundle.kits import write_app_folders, write_kits
from kind_export.bundle.manifest import draft_manifest, write_manifest
from kind_export.bundle.packs import hash_base, write_packs
from kind_export.compact.decode import measure_decoder
from kind_export.compact.model import CompactModel
from kind_export.job import ExportJob, require_tailors
from kind_export.planning.for_request import make_planner, require_budget
from kind_export.planning.plan import Choice, Considered, Plan, apply_choice
from kind_export.prepared import Prepared
from kind_export.report.collect import choose_devices, write_report
from kind_export.report.words import warn_of_training
from kind_export.request import ExportRequest
from kind_export.rewrites import RewriteOptions, rewrite, rewrite_base
from kind_export.rewrites.detach_classes import DetachedClass
from kind_export.rewrites.factor_modulations import table_error_db
from kind_export.target_rows import TARGET_ROWS
from kind_export.targets.class_functions import name_functions
from kind_export.targets.lowering import Lowered, Written, require_size
from kind_export.targets.target import TargetOptions, choose_precision, load_target
from kind_export.verify.delegation import check_delegation, check_strict
from kind_export.verify.gates import Verifier
from kind_export.verify.lower_within_gate import lower_within_gate
from kind_export.verify.parity import Parity, ShortfallError
from kind_export.verify.stored_weights import check_stored_weights
from kind_runtimes.about import About
from kind_runtimes.bundle import BUNDLE, Bundle, open_bundle
from kind_runtimes.golden import GOLDEN_NAME
from kind_runtimes.manifest import Manifest

OnStage = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportResult:
    """The finished bundle and what was measured."""

    path: Path
    manifest: Manifest
    parities: dict[str, Parity]
    notes: tuple[str, ...]


def export_bundle(request: ExportRequest, on_stage: OnStage = lambda stage: None) -> ExportResult:
    """Export, verify and publish; raises a KindError and leaves nothing behind when anything fails.

    Within a budget the best choice that fits is exported; where its artifact does not hold after all, the next.
    """
    prepared = Prepared(request, on_stage)
    if request.budget.is_empty:
        return _export(prepared, prepared.job, on_stage)
    planner = make_planner(prepared)
    failed: dict[Choice, KindError] = {}
    while True:
        try:
            budget_plan = planner.plan(on_stage, without=failed)
        except BudgetError as error:
            raise next(reversed(failed.values()), error) from error  # what fits by forecast did not hold
        chosen = budget_plan.ranked[0]
        try:
            job = prepared.choose(apply_choice(request, chosen.choice))
            return _export(prepared, job, on_stage, budget_plan, chosen)
        except (BudgetError, ShortfallError) as error:
            on_stage(f"{chosen.choice.describe()} does not hold: {error.message}")
            failed[chosen.choice] = error


def _export(
    prepared: Prepared,
    job: ExportJob,
    on_stage: OnStage,
    budget_plan: Plan | None = None,
    chosen: Considered | None = None,
) -> ExportResult:
    request = job.request
    devices = choose_devices(request.devices)
    sampler = read_sampler_table(job.source.config.diffusion, job.sampling.sampler, job.sampling.steps)
    verifier = prepared.make_verifier(job)  # first, because it refuses what no check could tell from nothing
    on_stage("composing and rewriting")
    source, checkpoint = prepared.source, prepared.checkpoint
    compact, detached = _rewrite(job, checkpoint, sampler)
    if source.decoder is not None:
        finals = [one.latents[-1] for one in verifier.trajectories]
        compact = replace(compact, decoder=measure_decoder(source.decoder, finals))
    about = _describe_programs(job, checkpoint)
    options_of = {name: replace(_target_options(name, request, checkpoint), about=about) for name in job.targets}
    for name in (name for name in job.targets if TARGET_ROWS[name].is_program):
        require_size(name, compact, options_of[name])
    with staged(job.output, BUNDLE, force=request.force) as folder, temporaries_beside(folder):
        folder.mkdir()
        packs = _write_packs(folder, job, checkpoint, compact, sampler, detached)

        def draft_of(lowered: Mapping[str, Written]) -> Manifest:
            return draft_manifest(job, checkpoint, compact, lowered, packs)

        lowered: dict[str, Written] = {}
        parities, profiles = {}, {}
        for name, options in options_of.items():
            if not TARGET_ROWS[name].is_program:
                lowered[name], parities[name] = _write_pipeline(
                    folder, job.source.autoencoder, checkpoint, compact, options, verifier, draft_of, on_stage
                )
                continue
            lowered[name], parities[name] = lower_within_gate(
                name, compact, folder, options, verifier, draft_of, on_stage
            )
            profiles[name] = check_delegation(folder, lowered[name].spec)
            if request.strict:
                check_strict(folder, lowered[name].spec, profiles[name])
        draft = draft_of(lowered)
        on_stage("counting the work")
        works = count_bundle(Bundle(path=folder, manifest=draft))
        for name, one in lowered.items():
            if isinstance(one, Lowered):
                check_stored_weights(folder, one, works[name]["step"])
        if budget_plan is not None:
            require_budget(budget_plan.budget, works, folder, draft, devices)
        on_stage("drawing previews")
        alone = [verifier.learngene] if request.packs else []
        write_golden(folder / GOLDEN_NAME, [*verifier.trajectories, *alone], verifier.reference)
        write_preview(folder, draft)
        write_kits(folder, request.kits)
        manifest = write_manifest(folder, draft, parities)
        write_app_folders(folder, manifest, request.kits)
        on_stage("measuring")
        timings = time_bundle(open_bundle(folder, run_code=True), folder / "measured.json", profiles)
        described = budget_plan.to_dict(chosen) if budget_plan is not None and chosen is not None else None
        write_report(
            folder, manifest, checkpoint, compact, parities, timings, works=works, devices=devices, plan=described
        )
        open_bundle(folder)
    notes = tuple(c.note for c in job.classes if c.note)
    warning = warn_of_training(checkpoint.config.training)
    notes += (warning,) if warning else ()
    return ExportResult(path=job.output, manifest=manifest, parities=parities, notes=notes)


def _target_options(name: str, request: ExportRequest, checkpoint: Checkpoint) -> TargetOptions:
    precision = choose_precision(name, load_target(name), request.precision)
    functions = name_functions(checkpoint.config.classes) if request.class_functions else {}
    return TargetOptions(precision=precision, min_ios=request.min_ios, class_functions=functions)


def _describe_programs(job: ExportJob, checkpoint: Checkpoint) -> About:
    """What every program says of itself; a base knows no class."""
    provenance = checkpoint.config.provenance
    return About(
        classes=() if job.request.packs else checkpoint.config.classes,
        sampling=job.sampling,
        author=provenance.author,
        licence=provenance.licence,
    )


def _write_pipeline(
    folder: Path,
    autoencoder: Path | None,
    checkpoint: Checkpoint,
    compact: CompactModel,
    options: TargetOptions,
    verifier: Verifier,
    draft_of: Callable[[Mapping[str, Written]], Manifest],
    on_stage: OnStage,
) -> tuple[Written, Parity]:
    """The diffusers folder: step by step through its programs' gates, then each class by one call of the pipeline."""
    from kind_export.targets.diffusers.write import NAME, lower_pipeline
    from kind_export.verify.pipeline import check_pipeline

    reference, precision = verifier.reference, options.precision
    on_stage(f"writing the {NAME} pipeline")
    written = lower_pipeline(folder, checkpoint, compact, reference.sampling, precision, autoencoder)
    on_stage(f"verifying {NAME}")
    parity = verifier.verify(folder, draft_of({NAME: written}), written.spec)
    psnr_db = check_pipeline(folder, verifier.trajectories, reference, precision)
    written.facts["step"]["pipeline_psnr_db"] = round(psnr_db, 2)
    return written, parity


def _rewrite(
    job: ExportJob, checkpoint: Checkpoint, sampler: SamplerTable
) -> tuple[CompactModel, tuple[DetachedClass, ...]]:
    """The model with its classes built in, or a base and the classes apart."""
    request = job.request
    options = RewriteOptions(
        baking=request.baking,
        max_rank=request.max_rank,
        energy=request.energy,
        table_error_db=table_error_db(request.precision),
        forms=request.forms,
    )
    if not request.packs:
        return rewrite(checkpoint.model, sampler, options), ()
    tailor_rank = require_tailors(job.source.config)
    return rewrite_base(checkpoint.model, sampler, tailor_rank, options=options)


def _write_packs(
    folder: Path,
    job: ExportJob,
    checkpoint: Checkpoint,
    compact: CompactModel,
    sampler: SamplerTable,
    detached: tuple[DetachedClass, ...],
) -> dict[str, Any]:
    """The packs of a base, and what the manifest says of them; nothing where the classes are built in."""
    if not job.request.packs:
        return {}
    base = hash_base(job.source.path, checkpoint.config, job.sampling.sampler, sampler, compact)
    return {"pack_base": base, "packs": write_packs(folder, checkpoint.config.classes, detached, base)}
