"""The whole export, top to bottom: checkpoint -> compose and rewrite -> lower -> verify -> report -> bundle.

`export_bundle` is the one to read. Everything is written into a staging folder that takes the bundle's place only when
every check has passed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kind_core.checkpoint import Checkpoint
from kind_core.classes import ClassInfo, ResolvedClass, resolve_classes
from kind_core.errors import BudgetError, KindError
from kind_core.sampling import guided_steps
from kind_core.schedule import SamplerTable, read_sampler_table
from kind_core.staging import check_output, staged
from kind_export.blending import Opening, open_together
from kind_export.class_functions import name_functions
from kind_export.compact import CompactModel
from kind_export.decoding import measure_decoder
from kind_export.delegation import check_delegation, check_strict
from kind_export.golden import write_golden, write_preview
from kind_export.kits import write_kits
from kind_export.lowering import Written
from kind_export.packs import hash_base, require_tailors, write_packs
from kind_export.planning.budget import Budget
from kind_export.planning.plan import Choice, Considered, Plan, PlanInputs, Planner, apply_choice, artifact_cost
from kind_export.precision import lower_within_gate
from kind_export.programs import latents_shape
from kind_export.reference import Reference
from kind_export.report import choose_devices, write_report
from kind_export.request import PIPELINE_TARGET, ExportRequest, parse_targets
from kind_export.rewrites import RewriteOptions, describe_rewrites, rewrite, rewrite_base
from kind_export.rewrites.detach_classes import DetachedClass
from kind_export.rewrites.factor_modulations import table_error_db
from kind_export.source import Source, open_source
from kind_export.targets import Precision, TargetOptions, choose_precision, load_target
from kind_export.verify import Parity, ShortfallError, Verifier
from kind_export.work_report import Works
from kind_runtimes.about import About
from kind_runtimes.bundle import MANIFEST_NAME, Bundle, hash_file, list_files, open_bundle
from kind_runtimes.counting import count_bundle
from kind_runtimes.device_table import Device
from kind_runtimes.manifest import (
    FORMAT_VERSION,
    NOISE_GENERATOR,
    Manifest,
    describe_program,
    parse_manifest,
)
from kind_runtimes.timing import Timing, time_bundle

OnStage = Callable[[str], None]
_TOOLS = {
    "coreml": ("coremltools", "torch"),
    "onnx": ("onnx", "onnxscript", "onnxruntime", "torch"),
    "executorch": ("executorch", "torch"),
    "diffusers": ("torch",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportResult:
    """The finished bundle and what was measured."""

    path: Path
    manifest: Manifest
    parities: dict[str, Parity]
    timings: dict[str, Timing]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """A request with every default filled in."""

    request: ExportRequest
    source: Source
    targets: list[str]
    classes: list[ResolvedClass]
    openings: tuple[Opening, ...]
    steps: int
    sampler: str
    guidance: float
    output: Path


def export_bundle(request: ExportRequest, on_stage: OnStage = lambda stage: None) -> ExportResult:
    """Export, verify and publish; raises a KindError and leaves nothing behind when anything fails.

    Within a budget the best choice that fits is exported; where its artifact does not hold after all, the next.
    """
    if request.budget.is_empty:
        return _export(request, on_stage)
    planner = _make_planner(request, on_stage)
    failed: dict[Choice, KindError] = {}
    while True:
        try:
            budget_plan = planner.plan(on_stage, without=failed)
        except BudgetError as error:
            raise next(reversed(failed.values()), error) from error  # what fits by forecast did not hold
        chosen = budget_plan.ranked[0]
        try:
            return _export(apply_choice(request, chosen.choice), on_stage, budget_plan, chosen)
        except (BudgetError, ShortfallError) as error:
            on_stage(f"{chosen.choice.describe()} does not hold: {error.message}")
            failed[chosen.choice] = error


def _export(
    request: ExportRequest, on_stage: OnStage, budget_plan: Plan | None = None, chosen: Considered | None = None
) -> ExportResult:
    plan = _plan(request)
    devices = choose_devices(request.devices)
    check_output(plan.output, force=request.force)
    sampler = read_sampler_table(plan.source.config.diffusion, plan.sampler, plan.steps)
    on_stage("reading the checkpoint")
    source = plan.source.load([c.index for c in plan.classes])
    on_stage("running the eager model")
    verifier = _make_verifier(plan, source)  # first, because it refuses what no check could tell from nothing
    on_stage("composing and rewriting")
    checkpoint = open_together(source, plan.openings)
    compact, detached = _rewrite(plan, checkpoint, sampler)
    if source.decoder is not None:
        compact = replace(compact, decoder=measure_decoder(source.decoder, verifier.trajectories))
    with staged(plan.output, force=request.force) as folder:
        folder.mkdir()
        packs = _write_packs(folder, plan, checkpoint, compact, sampler, detached)

        def draft_of(lowered: Mapping[str, Written]) -> Manifest:
            return _draft_manifest(plan, checkpoint, compact, sampler, lowered, packs)

        about = _describe_programs(plan, checkpoint, sampler)
        lowered: dict[str, Written] = {}
        parities, profiles = {}, {}
        for name in plan.targets:
            options = replace(_target_options(name, request, checkpoint), about=about)
            if name == PIPELINE_TARGET:
                lowered[name], parities[name] = _write_pipeline(
                    folder, plan.source.autoencoder, checkpoint, compact, options, verifier, draft_of, on_stage
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
        if budget_plan is not None:
            _require_budget(budget_plan.budget, works, folder, draft, devices)
        on_stage("drawing previews")
        alone = [verifier.learngene] if request.packs else []
        write_golden(folder / "golden.safetensors", [*verifier.trajectories, *alone], verifier.reference)
        write_preview(folder, draft)
        write_kits(folder, request.kits)
        manifest = _write_manifest(folder, draft, parities)
        on_stage("measuring")
        timings = time_bundle(open_bundle(folder), folder / "measured.json", profiles)
        described = budget_plan.to_dict(chosen) if budget_plan is not None and chosen is not None else None
        write_report(
            folder, manifest, checkpoint, compact, parities, timings, works=works, devices=devices, plan=described
        )
        open_bundle(folder)
    notes = tuple(c.note for c in plan.classes if c.note)
    return ExportResult(path=plan.output, manifest=manifest, parities=parities, timings=timings, notes=notes)


def _make_planner(request: ExportRequest, on_stage: OnStage) -> Planner:
    """What plans within the budget of a request."""
    plan = _plan(request)
    check_output(plan.output, force=request.force)
    (name,) = plan.targets
    on_stage("reading the checkpoint")
    source = plan.source.load([c.index for c in plan.classes])
    reference = Reference(
        checkpoint=open_together(source, plan.openings), sampler=plan.sampler, steps=plan.steps, guidance=plan.guidance,
        guidance_interval=request.guidance_interval,
    )  # fmt: skip
    inputs = PlanInputs(
        reference=reference, target=name, precisions=_offered(name, request), baking=request.baking,
        max_rank=request.max_rank, energy=request.energy,
        device=choose_devices(request.devices)[0] if request.budget.is_timed else None,
    )  # fmt: skip
    return Planner(inputs, request.budget)


def _offered(name: str, request: ExportRequest) -> tuple[Precision, ...]:
    """The precisions that may be chosen: the asked one, or all that the oldest system loads."""
    target = load_target(name)
    if request.precision is not None:
        return (choose_precision(name, target, request.precision),)
    lowest = TargetOptions(precision=target.DEFAULT_PRECISION, min_ios=request.min_ios)
    return tuple(one for one in target.PRECISIONS if target.is_loadable(replace(lowest, precision=one)))


def _require_budget(budget: Budget, works: Works, folder: Path, draft: Manifest, devices: Sequence[Device]) -> None:
    """Hold the artifact itself against the budget; raises BudgetError."""
    (name,) = draft.targets
    size = sum(file.stat().st_size for file in (folder / name).rglob("*") if file.is_file())
    misses = artifact_cost(works[name], size, draft, devices[0] if budget.is_timed else None).misses(budget)
    if misses:
        missed = "; ".join(miss.describe() for miss in misses)
        raise BudgetError(f"the exported {name} programs miss {missed}; nothing was published", "allow a little more")


def _plan(request: ExportRequest) -> _Plan:
    source = open_source(request)
    config = source.config
    classes, openings = _resolve(request, config.classes)
    defaults = config.diffusion
    if request.packs:
        require_tailors(config)
    queries = [*request.classes, *("-".join(blend) for blend in request.blends)]
    name = "-".join(re.sub(r"[^a-z0-9]+", "-", query.lower()).strip("-") for query in queries[:3])
    if len(queries) > 3:
        name += f"-and-{len(queries) - 3}-more"
    return _Plan(
        request=request,
        source=source,
        targets=parse_targets(request.targets),
        classes=classes,
        openings=openings,
        steps=defaults.steps if request.steps is None else request.steps,
        sampler=defaults.sampler if request.sampler is None else request.sampler,
        guidance=defaults.guidance_scale if request.guidance is None else request.guidance,
        output=Path("base.kind" if request.packs else f"{name}.kind") if request.output is None else request.output,
    )


def _resolve(request: ExportRequest, known: tuple[ClassInfo, ...]) -> tuple[list[ResolvedClass], tuple[Opening, ...]]:
    """The classes whose tailors are read, and which of them each class of the bundle opens."""
    classes = resolve_classes(request.classes, known)
    openings: list[Opening] = [(position,) for position in range(len(classes))]
    for blend in request.blends:
        parts = resolve_classes(blend, known)
        classes += [part for part in parts if part.index not in {c.index for c in classes}]
        places = {c.index: position for position, c in enumerate(classes)}
        openings.append(tuple(places[part.index] for part in parts))
    return classes, tuple(openings)


def _make_verifier(plan: _Plan, source: Checkpoint) -> Verifier:
    request = plan.request
    reference = Reference(
        checkpoint=source, sampler=plan.sampler, steps=plan.steps, guidance=plan.guidance,
        guidance_interval=request.guidance_interval, openings=plan.openings,
    )  # fmt: skip
    return Verifier(reference, is_approximate=request.max_rank is not None or request.energy is not None)


def _target_options(name: str, request: ExportRequest, checkpoint: Checkpoint) -> TargetOptions:
    precision = choose_precision(name, load_target(name), request.precision)
    functions = name_functions(checkpoint.config.classes) if request.class_functions else {}
    return TargetOptions(precision=precision, min_ios=request.min_ios, class_functions=functions)


def _describe_programs(plan: _Plan, checkpoint: Checkpoint, sampler: SamplerTable) -> About:
    """What every program says of itself; a base knows no class."""
    guided = guided_steps(plan.steps, plan.request.guidance_interval)
    provenance = checkpoint.config.provenance
    return About(
        classes=() if plan.request.packs else checkpoint.config.classes,
        steps=plan.steps,
        sampler=plan.sampler,
        guidance_scale=plan.guidance,
        initial_noise_scale=sampler.initial_noise_scale,
        guided_steps=None if all(guided) else tuple(i for i, one in enumerate(guided) if one),
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
    from kind_export.targets.diffusers import check_pipeline, lower_pipeline

    reference, precision = verifier.reference, options.precision
    on_stage(f"writing the {PIPELINE_TARGET} pipeline")
    written = lower_pipeline(folder, checkpoint, compact, reference, precision, autoencoder)
    on_stage(f"verifying {PIPELINE_TARGET}")
    parity = verifier.verify(folder, draft_of({PIPELINE_TARGET: written}), written.spec)
    psnr_db = check_pipeline(folder, verifier.trajectories, reference, precision)
    written.facts["step"]["pipeline_psnr_db"] = round(psnr_db, 2)
    return written, parity


def _rewrite(
    plan: _Plan, checkpoint: Checkpoint, sampler: SamplerTable
) -> tuple[CompactModel, tuple[DetachedClass, ...]]:
    """The model with its classes built in, or a base and the classes apart."""
    request = plan.request
    options = RewriteOptions(
        baking=request.baking, max_rank=request.max_rank, energy=request.energy,
        table_error_db=table_error_db(request.precision), forms=request.forms,
    )  # fmt: skip
    if not request.packs:
        return rewrite(checkpoint.model, sampler, options), ()
    tailor_rank = require_tailors(plan.source.config)
    return rewrite_base(checkpoint.model, sampler, tailor_rank, options=options)


def _write_packs(
    folder: Path,
    plan: _Plan,
    checkpoint: Checkpoint,
    compact: CompactModel,
    sampler: SamplerTable,
    detached: tuple[DetachedClass, ...],
) -> dict[str, Any]:
    """The packs of a base, and what the manifest says of them; nothing where the classes are built in."""
    if not plan.request.packs:
        return {}
    base = hash_base(plan.source.path, checkpoint.config, plan.sampler, sampler, compact)
    return {"pack_base": base, "packs": write_packs(folder, checkpoint.config.classes, detached, base)}


def _draft_manifest(
    plan: _Plan,
    checkpoint: Checkpoint,
    compact: CompactModel,
    sampler: SamplerTable,
    lowered: Mapping[str, Written],
    packs: dict[str, Any],
) -> Manifest:
    """The manifest without parity and hashes, which come from running what it describes."""
    tools = sorted({tool for name in lowered for tool in _TOOLS[name]} | {"diffusers"})
    config = checkpoint.config
    data: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "name": plan.output.name.removesuffix(".kind") or plan.output.name,
        "classes": [
            _describe_class(info, opening, plan) for info, opening in zip(config.classes, plan.openings, strict=True)
        ],
        **packs,
        "steps": plan.steps,
        "sampler": plan.sampler,
        "guidance_scale": plan.guidance,
        **_describe_interval(plan),
        "initial_noise_scale": sampler.initial_noise_scale,
        "latents_shape": list(latents_shape(compact)),
        "noise_generator": NOISE_GENERATOR,
        "source": {"checkpoint_sha256": checkpoint.sha256},
        "tools": {tool: version(tool) for tool in (*tools, "kind-diffusion")},
        "rewrites": describe_rewrites(compact) | _describe_cut(plan.request),
        "targets": {
            name: {
                "precision": one.spec.precision,
                "programs": {key: describe_program(p) for key, p in one.spec.programs.items()},
                "lowering": one.facts,
                "parity": {"verified_by": "", "threshold_db": 0, "trajectory_psnr_db": 0, "step_psnr_db": 0},
            }
            for name, one in lowered.items()
        },
        "files": {},
    }
    return parse_manifest(json.dumps(data), "the manifest draft")


def _describe_class(info: ClassInfo, opening: Opening, plan: _Plan) -> dict[str, Any]:
    """A class as the manifest writes it; a blend names its parts."""
    parts = {"blend_of": [plan.classes[position].info.id for position in opening]} if len(opening) > 1 else {}
    return {"id": info.id, "names": list(info.names), **parts}


def _describe_cut(request: ExportRequest) -> dict[str, Any]:
    """The limits of rank that were asked for."""
    limits = {"max_rank": request.max_rank, "energy": request.energy}
    asked = {name: value for name, value in limits.items() if value is not None}
    return {"cut": asked} if asked else {}


def _describe_interval(plan: _Plan) -> dict[str, Any]:
    """Which steps are guided, where it is not all of them."""
    interval = plan.request.guidance_interval
    guided = guided_steps(plan.steps, interval)
    if all(guided):
        return {}
    return {"guidance_interval": list(interval), "guided_steps": [i for i, one in enumerate(guided) if one]}


def _write_manifest(folder: Path, draft: Manifest, parities: dict[str, Parity]) -> Manifest:
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
