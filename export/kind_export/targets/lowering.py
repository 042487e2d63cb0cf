"""From a compact model to the programs of one target in a bundle folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kind_core.config import ModelConfig
from kind_export.compact.model import CompactModel
from kind_export.job import ExportJob
from kind_export.precision import count_bytes
from kind_export.target_rows import TARGET_ROWS
from kind_export.targets.class_functions import make_class_steps, name_functions
from kind_export.targets.programs import decode_options, make_decode, make_step
from kind_export.targets.target import Facts, Lowering, TargetOptions, check_size, load_target
from kind_runtimes.about import About
from kind_runtimes.manifest import ProgramSpec, TargetSpec

OnStage = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """The programs of a target as the manifest describes them, and what its tools reported."""

    spec: TargetSpec
    facts: dict[str, Facts]


@dataclass(frozen=True, kw_only=True, slots=True)
class Lowered(Written):
    """The same with what was lowered.

    `class_steps` are the functions by name where each class has its own; `step` is then that of the first.
    """

    step: Lowering
    options: TargetOptions
    class_steps: Mapping[str, Lowering] = field(default_factory=dict)


def lower_target(
    name: str, compact: CompactModel, folder: Path, options: TargetOptions, is_guided: Sequence[bool], on_stage: OnStage
) -> Lowered:
    """Write the programs of `compact` into `folder`/`name`, in place of what an attempt before left there."""
    target = load_target(name)
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).mkdir()
    class_steps = make_class_steps(compact, options.class_functions, target, options)
    step = next(iter(class_steps.values()), None) or make_step(compact, target, options)
    on_stage(f"lowering step to {name}")
    file = f"{name}/step{target.ROW.suffix}"
    facts: dict[str, Facts] = {}
    if class_steps:
        facts["step"] = target.lower_functions(class_steps, folder / file, options)
        programs = {"step": replace(_describe(step, file), class_functions=options.class_functions)}
    elif all(is_guided):
        facts["step"] = target.lower(step, folder / file, options)
        programs = {"step": _describe(step, file)}
    else:
        unguided = make_step(compact, target, options, is_guided=False)
        facts["step"], functions = target.lower_pair(step, unguided, is_guided, folder / file, options)
        pair = {lowering.name: lowering for lowering in (step, unguided)}
        programs = {key: _describe(pair[key], file, function) for key, function in functions.items()}
    own = decode_options(compact, target, options)
    decode = make_decode(compact, target, own)
    if decode is not None:
        on_stage(f"lowering decode to {name}")
        file = f"{name}/decode{target.ROW.suffix}"
        facts["decode"] = target.lower(decode, folder / file, own)
        if compact.decoder is not None:
            facts["decode"] |= {"precision": own.precision, "peak_activation": round(compact.decoder.peak, 1)}
        programs["decode"] = _describe(decode, file)
    spec = TargetSpec(target=name, precision=options.precision, programs=programs)
    return Lowered(spec=spec, facts=facts, step=step, options=options, class_steps=class_steps)


def choose_options(job: ExportJob, config: ModelConfig, compact: CompactModel) -> dict[str, TargetOptions]:
    """How each target of a job is lowered, and what its programs say of themselves; a base knows no class.

    Raises TargetError for a precision that a target has not, ExportError where the step of `compact` is larger than a
    file of a target can be.
    """
    request, provenance, chosen = job.request, config.provenance, {}
    about = About(
        classes=() if request.packs else config.classes,
        sampling=job.sampling,
        author=provenance.author,
        licence=provenance.licence,
    )
    functions = name_functions(config.classes) if request.class_functions else {}
    for row in (TARGET_ROWS[name] for name in job.targets):
        precision = row.choose_precision(request.precision)
        options = TargetOptions(precision=precision, min_ios=request.min_ios, class_functions=functions, about=about)
        chosen[row.name] = options
        if row.max_bytes is not None:
            step = make_step(compact, load_target(row.name), options)
            check_size(count_bytes(step.module, precision), row.max_bytes, f"step{row.suffix} in {precision}")
    return chosen


def _describe(lowering: Lowering, file: str, function: str | None = None) -> ProgramSpec:
    return ProgramSpec(
        name=lowering.name, file=file, inputs=lowering.inputs, outputs=lowering.outputs, function=function
    )
