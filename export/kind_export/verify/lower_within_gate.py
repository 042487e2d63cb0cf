"""Lower a target in the asked precision and verify it; where that is not close enough, keep the layers to blame higher.

The rule is measured: the artifact says by how many dB it falls short, each layer's noise on the reference's own
trajectories says which layers carry that much of it (see `kind_export.precision`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from kind_core.precisions import PRECISIONS
from kind_export.compact.model import CompactModel
from kind_export.precision import choose_kept, describe_costs, measure_costs
from kind_export.target_rows import TARGET_ROWS
from kind_export.targets.lowering import Lowered, lower_target
from kind_export.targets.target import Lowering, TargetOptions
from kind_export.verify.parity import Parity, ShortfallError
from kind_export.verify.probes import step_indices
from kind_export.verify.saved_step import SavedStep
from kind_export.verify.trial import Trial
from kind_runtimes.loop import Loop

_MAX_ATTEMPTS = 3
# A program with most of its layers kept is no program of the asked precision.
_MAX_KEPT_SHARE = 0.5
_CALIBRATION_CLASSES = 2


def lower_within_gate(name: str, compact: CompactModel, options: TargetOptions, trial: Trial) -> tuple[Lowered, Parity]:
    """The programs of a target that pass its gates, and how well; raises VerificationError where none do."""
    costs: dict[str, float] = {}
    for attempt in range(_MAX_ATTEMPTS):
        guided = trial.verifier.reference.sampling.guided
        lowered = lower_target(name, compact, trial.folder, options, guided, trial.on_stage)
        loop = trial.open(lowered.spec)
        try:
            return lowered, trial.check(loop, lowered.spec, _saved_step(trial, lowered))
        except ShortfallError as error:
            if PRECISIONS[options.precision].is_float:
                raise
            if not costs:
                trial.on_stage(f"finding what {options.precision} costs")
                inputs = _calibrate(lowered.step, loop, trial)
                costs = measure_costs(lowered.step.module, inputs, options.precision)
            keep = choose_kept(costs, options.keep, error.shortfall_db)
            if attempt + 1 == _MAX_ATTEMPTS or len(keep) > _MAX_KEPT_SHARE * len(costs):
                raise ShortfallError(
                    f"{error.message}; most of the noise comes from {describe_costs(costs)}",
                    "try a higher --precision, --min-ios 18 for Core ML, or more --steps",
                    error.shortfall_db,
                ) from error
            options = replace(options, keep=keep)
    raise AssertionError("the last attempt returns or raises")


def _saved_step(trial: Trial, lowered: Lowered) -> SavedStep | None:
    """Where a Core ML package is not the eager model up to rounding, what it should be instead."""
    differs = trial.verifier.is_approximate or not PRECISIONS[lowered.options.precision].is_float
    return SavedStep(trial.folder, lowered) if TARGET_ROWS[lowered.spec.target].reads_back_weights and differs else None


def _calibrate(lowering: Lowering, loop: Loop, trial: Trial) -> list[tuple[Tensor, ...]]:
    """Arguments of the step at several steps of the reference's trajectories."""
    reference, packs, calls = trial.verifier.reference, trial.packs, []
    for class_index, probes in enumerate(trial.verifier.probes[:_CALIBRATION_CLASSES]):
        one = loop.with_pack(packs[class_index]) if packs else loop
        for index in step_indices(reference.sampling.steps):
            inputs = {
                **probes[index].inputs(one, 0 if packs else class_index),
                "step_index": np.array([index], np.int32),
                "guidance": np.array([reference.sampling.guidance_scale], np.float32),
            }
            calls.append(tuple(torch.from_numpy(inputs[spec.name]) for spec in lowering.inputs))
    return calls
