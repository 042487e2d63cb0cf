"""The whole export, top to bottom: checkpoint -> compose and rewrite -> lower -> verify -> report -> bundle.

`export_bundle` is the one to read. Everything is written into a staging folder that takes the bundle's place only when
every check has passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from kind_bench.counting import count_targets
from kind_bench.measure.quick import time_bundle
from kind_core.checkpoint import Checkpoint
from kind_core.errors import BudgetError, KindError
from kind_core.files.staging import staged, temporaries_beside
from kind_core.schedule import read_sampler_table
from kind_export.bundle.golden import write_golden, write_preview
from kind_export.bundle.kits import write_app_folders, write_kits
from kind_export.bundle.manifest import make_manifest, write_manifest
from kind_export.bundle.packs import hash_base, write_packs
from kind_export.compact.decode import measure_decoder
from kind_export.compact.model import CompactModel
from kind_export.job import ExportJob, read_job, require_tailors
from kind_export.planning.choice import Choice, Plan
from kind_export.planning.plan import make_planner, require_budget
from kind_export.prepared import Prepared
from kind_export.report.collect import choose_devices, write_report
from kind_export.report.words import warn_of_training
from kind_export.request import ExportRequest
from kind_export.rewrites import RewriteOptions, rewrite, rewrite_base
from kind_export.rewrites.detach_classes import DetachedClass
from kind_export.stages import PLANNING, OnStage, Stages, list_making, list_stages
from kind_export.target_rows import TARGET_ROWS
from kind_export.targets.lowering import Lowered, Written, choose_options
from kind_export.targets.target import TargetOptions
from kind_export.verify.delegation import check_delegation, check_strict
from kind_export.verify.gates import Verifier
from kind_export.verify.lower_within_gate import lower_within_gate
from kind_export.verify.parity import Parity, ShortfallError
from kind_export.verify.stored_weights import check_stored_weights
from kind_export.verify.trial import Trial, check_pipeline
from kind_runtimes.bundle import BUNDLE, open_bundle
from kind_runtimes.documents.reports.targets import Delegation
from kind_runtimes.engine_rows import ENGINES
from kind_runtimes.golden import GOLDEN_NAME
from kind_runtimes.manifest import Manifest
from kind_runtimes.packs import read_pack


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportResult:
    """The finished bundle and what was measured."""

    path: Path
    manifest: Manifest
    parities: dict[str, Parity]
    notes: tuple[str, ...]


def export_bundle(request: ExportRequest, on_stage: OnStage = lambda stage: None) -> ExportResult:
    """Export, verify and publish; raises a KindError and leaves nothing behind when anything fails.

    `on_stage` is told of each `Stage` as it begins.

    Within a budget the best choice that fits is exported; where its artifact does not hold after all, the next.
    """
    stages = Stages(on_stage)
    prepared = Prepared(request, stages.begin)
    stages.expect(list_stages(prepared.job))
    if request.budget.is_empty:
        return _export(prepared, prepared.job, stages.begin)
    planner = make_planner(prepared)
    failed: dict[Choice, KindError] = {}
    while True:
        try:
            budget_plan = planner.plan(stages.begin, without=failed)
        except BudgetError as error:
            raise next(reversed(failed.values()), error) from error  # what fits by forecast did not hold
        choice = budget_plan.ranked[0].choice
        try:
            job = read_job(choice.apply(request), prepared.job.source)
            return _export(prepared, job, stages.begin, budget_plan)
        except (BudgetError, ShortfallError) as error:
            stages.expect([*PLANNING, *list_making(prepared.job)])
            stages.begin(f"{choice.describe()} does not hold: {error.message}")
            failed[choice] = error


@dataclass(kw_only=True, slots=True)
class _Programs:
    """What was written for each target, how well it was verified, and what a trace of it showed."""

    lowered: dict[str, Written] = field(default_factory=dict)
    parities: dict[str, Parity] = field(default_factory=dict)
    profiles: dict[str, Delegation | None] = field(default_factory=dict)


def _export(prepared: Prepared, job: ExportJob, on_stage: OnStage, budget_plan: Plan | None = None) -> ExportResult:
    request = job.request
    devices = choose_devices(request.devices)
    verifier = prepared.make_verifier(job)  # first, because it refuses what no check could tell from nothing
    checkpoint = prepared.checkpoint
    on_stage("composing and rewriting")
    compact, detached = _compose(prepared, job, verifier)
    options_of = choose_options(job, checkpoint.config, compact)
    with staged(job.output, BUNDLE, force=request.force) as folder, temporaries_beside(folder):
        folder.mkdir()
        base, entries = None, []
        if request.packs:
            base = hash_base(job.source.path, checkpoint.config, job.sampling.sampler, compact)
            entries = write_packs(folder, checkpoint.config.classes, detached, base)
        packs = tuple(read_pack(folder / entry["file"]) for entry in entries)
        trial = Trial(folder=folder, verifier=verifier, packs=packs, on_stage=on_stage)
        programs = _write_programs(trial, job, checkpoint, compact, options_of)
        on_stage("counting the work")
        specs = {name: one.spec for name, one in programs.lowered.items()}
        works = count_targets(folder, specs, job.sampling)
        for name, one in programs.lowered.items():
            if isinstance(one, Lowered):
                check_stored_weights(folder, one, works[name]["step"])
        if budget_plan is not None:
            require_budget(budget_plan.budget, works, folder, job.sampling, devices)
        on_stage("drawing previews")
        alone = [verifier.learngene] if request.packs else []
        write_golden(folder / GOLDEN_NAME, [*verifier.trajectories, *alone], verifier.reference)
        first = next(name for name in ENGINES if name in specs)
        write_preview(folder / "preview.png", trial.open(specs[first]), checkpoint.config.classes, packs)
        write_kits(folder, request.kits)
        parities = programs.parities
        document = make_manifest(folder, job, checkpoint, compact, programs.lowered, parities, base, entries)
        manifest = write_manifest(folder, document)
        write_app_folders(folder, manifest, request.kits)
        on_stage("measuring")
        timings = time_bundle(open_bundle(folder, run_code=True), folder / "measured.json", programs.profiles)
        plan = None if budget_plan is None else budget_plan.to_dict()
        write_report(folder, manifest, checkpoint, compact, parities, timings, works=works, devices=devices, plan=plan)
        open_bundle(folder)
    notes = (*(c.note for c in job.classes), warn_of_training(checkpoint.config.training))
    return ExportResult(path=job.output, manifest=manifest, parities=parities, notes=tuple(filter(None, notes)))


def _compose(prepared: Prepared, job: ExportJob, verifier: Verifier) -> tuple[CompactModel, tuple[DetachedClass, ...]]:
    """The model with the classes of a bundle built in, or a base and the classes apart."""
    sampler = read_sampler_table(job.source.config.diffusion, job.sampling.sampler, job.sampling.steps)
    model, options = prepared.checkpoint.model, RewriteOptions.of(job.request)
    detached: tuple[DetachedClass, ...] = ()
    if job.request.packs:
        tailor_rank = require_tailors(job.source.config)
        compact, detached = rewrite_base(model, sampler, tailor_rank, options=options)
    else:
        compact = rewrite(model, sampler, options)
    decoder = prepared.source.decoder
    if decoder is not None:
        finals = [one.latents[-1] for one in verifier.trajectories]
        compact = replace(compact, decoder=measure_decoder(decoder, finals))
    return compact, detached


def _write_programs(
    trial: Trial, job: ExportJob, checkpoint: Checkpoint, compact: CompactModel, options_of: Mapping[str, TargetOptions]
) -> _Programs:
    """The programs of each target that pass its gates; raises VerificationError where none do."""
    programs = _Programs()
    for name, options in options_of.items():
        if not TARGET_ROWS[name].is_program:
            pipeline = _write_pipeline(trial, job.source.autoencoder, checkpoint, compact, options)
            programs.lowered[name], programs.parities[name] = pipeline
            continue
        lowered, programs.parities[name] = lower_within_gate(name, compact, options, trial)
        programs.lowered[name] = lowered
        profile = programs.profiles[name] = check_delegation(trial.folder, lowered.spec)
        if job.request.strict:
            check_strict(trial.folder, lowered.spec, profile)
    return programs


def _write_pipeline(
    trial: Trial, autoencoder: Path | None, checkpoint: Checkpoint, compact: CompactModel, options: TargetOptions
) -> tuple[Written, Parity]:
    """The diffusers folder: step by step through its programs' gates, then each class by one call of the pipeline."""
    from kind_export.targets.diffusers.write import NAME, lower_pipeline

    reference, precision = trial.verifier.reference, options.precision
    trial.on_stage(f"writing the {NAME} pipeline")
    written = lower_pipeline(trial.folder, checkpoint, compact, reference.sampling, precision, autoencoder)
    parity = trial.check(trial.open(written.spec), written.spec)
    psnr_db = check_pipeline(trial.folder, trial.verifier.trajectories, reference, precision)
    written.facts["step"]["pipeline_psnr_db"] = round(psnr_db, 2)
    return written, parity
