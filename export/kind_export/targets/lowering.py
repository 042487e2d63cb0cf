"""From a compact model to the programs of one target in a bundle folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kind_export.compact.model import CompactModel
from kind_export.precision.layers import count_bytes
from kind_export.targets.class_functions import make_class_steps
from kind_export.targets.programs import decode_options, make_decode, make_step
from kind_export.targets.target import Facts, Lowering, TargetOptions, check_size, load_target
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
    file = f"{name}/step{target.SUFFIX}"
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
        file = f"{name}/decode{target.SUFFIX}"
        facts["decode"] = target.lower(decode, folder / file, own)
        if compact.decoder is not None:
            facts["decode"] |= {"precision": own.precision, "peak_activation": round(compact.decoder.peak, 1)}
        programs["decode"] = _describe(decode, file)
    spec = TargetSpec(target=name, precision=options.precision, programs=programs)
    return Lowered(spec=spec, facts=facts, step=step, options=options, class_steps=class_steps)


def require_size(name: str, compact: CompactModel, options: TargetOptions) -> None:
    """Raise ExportError where the step of `compact` is larger than a file of target `name` can be."""
    target = load_target(name)
    if target.MAX_BYTES is None:
        return
    step = make_step(compact, target, options)
    size = count_bytes(step.module, options.precision, options.keep)
    check_size(size, target.MAX_BYTES, f"step{target.SUFFIX} in {options.precision}")


def _describe(lowering: Lowering, file: str, function: str | None = None) -> ProgramSpec:
    return ProgramSpec(
        name=lowering.name, file=file, inputs=lowering.inputs, outputs=lowering.outputs, function=function
    )
