"""Verification: each program, run by its own runtime, against the gated model under the diffusers scheduler.

Checked for every class: every single step from the reference's own latents, other guidance scales and larger latents
(see `probes`), the whole trajectory, no NaN, and the decoder. PSNR is in dB on unclamped latents with the reference's
range as peak.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property

import numpy as np

from kind_core.closeness import MAX_DB
from kind_core.errors import VerificationError
from kind_core.precisions import APPROXIMATE, EXACT, PRECISIONS
from kind_export.target_rows import TARGET_ROWS
from kind_export.verify.decode_check import check_decode, decode_threshold_db
from kind_export.verify.parity import (
    GRAPH_DB,
    LINE_DB,
    MIN_SLOPE,
    REPORT,
    ROUNDED_LINE_DB,
    Gate,
    Parity,
    most_rounding,
    showable_db,
    worst_of,
)
from kind_export.verify.probes import Probe, line_scales, make_probes, middle_guided, tried_scales
from kind_export.verify.reference import Reference, Trajectory
from kind_export.verify.saved_step import SavedStep
from kind_export.verify.subjects import Subject, ways_to_run
from kind_runtimes.engines.runtime import Arrays
from kind_runtimes.loop import Loop
from kind_runtimes.manifest import TargetSpec
from kind_runtimes.packs import Pack

_CHANGE = "change in "  # of the latents


class Verifier:
    """Holds the reference's trajectories of all classes, computed once for all targets.

    `is_approximate`: more than rounding is lost on purpose, so the gates are those of few bits. `hint` is what to do
    where programs are not close enough, if it is not to choose otherwise.
    """

    def __init__(self, reference: Reference, *, is_approximate: bool = False, hint: str = "") -> None:
        self.reference = reference
        self.is_approximate = is_approximate
        self._hint = hint
        self.trajectories: list[Trajectory] = []
        for index in range(len(reference.classes)):
            trajectory = reference.run(index)
            reference.require_testable(trajectory)
            self.trajectories.append(trajectory)
        self.probes = [make_probes(reference, trajectory) for trajectory in self.trajectories]

    def with_gates(self, *, is_approximate: bool) -> Verifier:
        """The same trajectories, held to the gates of few bits or to their own."""
        other = copy(self)
        other.is_approximate = is_approximate
        return other

    def check(
        self, loop: Loop, target: TargetSpec, packs: Sequence[Pack] = (), saved: SavedStep | None = None
    ) -> Parity:
        """Check opened programs of `target`; raises VerificationError at the first gate that they fail.

        Of a base the classes are `packs`, in order. `saved` is what a Core ML package should compute where it is not
        the eager model, up to rounding.
        """
        precision = self._gated_precision(target, packs)
        detached = self._run_detached(loop) if packs else None
        is_exact = target.precision == EXACT or not TARGET_ROWS[target.target].rounds_sampler
        subject = Subject(loop=loop, packs=tuple(packs), is_exact=is_exact)
        runs = [
            self._check_run(run, self._gate(run.describe(target), target), target, precision, saved)
            for run in ways_to_run(subject, target)
        ]
        parity = worst_of(runs)
        if detached is None:
            return parity
        check = self._gate(target.target, target)
        return replace(parity, detached_psnr_db=self._check_detached(loop, check, detached, target))

    def _gate(self, name: str, target: TargetSpec) -> Gate:
        hint = f"try --precision {EXACT}; if that fails too, {REPORT}"
        if self.is_approximate:
            hint = "cut less, by a larger --max-rank or --energy"
        elif target.precision == EXACT:
            hint = REPORT
        return Gate(target=name, config=self.reference, hint=self._hint or hint)

    def _check_run(
        self, subject: Subject, check: Gate, target: TargetSpec, precision: str, saved: SavedStep | None
    ) -> Parity:
        """All that is held of programs as one engine runs them."""
        gates = PRECISIONS[precision]
        decode_db = decode_threshold_db(self.reference, subject.loop, target, is_exact=subject.is_exact)
        if subject.is_wider and precision == target.precision:
            step_db = self._check_graph(subject, check, "step")
        else:
            step_db = self._check_steps(subject, check, gates.step_db, gates.update_db)
            self._check_guidance(subject, check, LINE_DB if subject.is_exact else ROUNDED_LINE_DB)
        class_db, error = self._check_trajectories(subject, check, gates.trajectory_db)
        if subject.can_unround:
            self._check_graph(subject.without_rounding(), check, "step without rounding", saved)
        return Parity(
            verified_by=subject.loop.step.engine,
            threshold_db=gates.trajectory_db,
            trajectory_psnr_db=min(class_db),
            trajectory_max_error=error,
            step_psnr_db=step_db,
            step_threshold_db=gates.step_db,
            decode_psnr_db=check_decode(subject.loop, check, self.trajectories, decode_db, is_exact=subject.is_exact),
            decode_threshold_db=decode_db,
            num_classes=len(self.trajectories),
            step_indices=tuple(range(self.reference.sampling.steps)),
            guidance_scales=tried_scales(self.reference.sampling),
            class_psnr_db=class_db,
        )

    @cached_property
    def learngene(self) -> Trajectory:
        """The trajectory of no class: the null label and no open gate in both halves."""
        return self.reference.run(len(self.reference.classes))

    def _gated_precision(self, target: TargetSpec, packs: Sequence[Pack]) -> str:
        """The precision whose gates hold."""
        if self.is_approximate:
            return APPROXIMATE
        # a pack is rounded to fp16 whatever its base computes in
        return "fp16" if packs and target.precision == EXACT else target.precision

    def _check_graph(self, subject: Subject, check: Gate, what: str, saved: SavedStep | None = None) -> float:
        """Where hardly more than weights is rounded a wrong graph has nowhere to hide; `saved` has the same weights."""
        self._check_guidance(subject, check, LINE_DB)
        return self._check_steps(subject, check, GRAPH_DB, PRECISIONS[EXACT].update_db - 10, what, saved)

    def _check_guidance(self, subject: Subject, check: Gate, threshold_db: float) -> None:
        """A step is a line in the guidance scale: through what it gives at 0 and 1, whatever its weights are."""
        index = middle_guided(self.reference)
        if index is None:
            return
        for trajectory, probes in zip(self.trajectories, self.probes, strict=True):
            loop, class_index = subject.choose(trajectory.class_index)
            inputs = probes[index].inputs(loop, class_index)
            scales = (0.0, 1.0, *line_scales(self.reference.sampling.guidance_scale))
            null, class_alone, *others = (loop.run_step(inputs, index, scale)["next_latents"] for scale in scales)
            slope = class_alone - null
            if np.ptp(slope) <= MIN_SLOPE * np.ptp(null):
                continue  # as it should be: steps at 0 and 1 are held against the eager model too
            for scale, actual in zip(scales[2:], others, strict=True):
                shares = ((1.0, null + scale * slope), (1 - scale, null), (scale, class_alone))
                rounding = np.sum([abs(w) * most_rounding(one, subject.half_roundings) for w, one in shares], axis=0)
                limit = min(threshold_db, showable_db(scale * slope, rounding))
                what = f"guidance {scale:g} in step {index}"
                check.require(what, scale * slope, actual - null, limit, class_index=trajectory.class_index)

    def _run_detached(self, loop: Loop) -> list[np.ndarray]:
        return list(loop.without_pack().trajectory(self.learngene.noise, 0))

    def _check_detached(self, loop: Loop, check: Gate, before: list[np.ndarray], target: TargetSpec) -> float:
        """Without a pack the base is the learngene alone, with the bits that it had before packs were attached."""
        limit = PRECISIONS[self._gated_precision(target, ())].trajectory_db
        measured = check.require("trajectory", self.learngene.latents[-1], before[-1], limit, class_index=None)
        after = self._run_detached(loop)
        if not all(np.array_equal(a, b) for a, b in zip(before, after, strict=True)):
            raise VerificationError(
                f"{target.target}: the base without a pack gives other bits than before packs were attached; "
                "nothing was published",
                "please report it with this command",
            )
        return measured

    def _check_steps(
        self,
        subject: Subject,
        check: Gate,
        threshold_db: float,
        update_db: float,
        what: str = "step",
        saved: SavedStep | None = None,
    ) -> float:
        """The worst PSNR of all probes; against `saved`, only of guided steps, which are all that it has."""
        worst, sampling = MAX_DB, self.reference.sampling
        for trajectory, probes in zip(self.trajectories, self.probes, strict=True):
            loop, class_index = subject.choose(trajectory.class_index)
            for probe in probes:
                if not subject.tries(probe, sampling.steps) or (saved and not sampling.guided[probe.index]):
                    continue
                inputs = probe.inputs(loop, class_index)
                outputs = loop.run_step(inputs, probe.index, probe.guidance)
                expected = probe if saved is None else _as_saved(saved, probe, inputs)
                for name, wanted, actual in self._compare_step(expected, outputs):
                    is_update = name == _CHANGE  # which has a threshold of its own
                    limit = min(update_db, _showable_db(wanted, probe, subject)) if is_update else threshold_db
                    where = f"{name}{what} {probe.describe()}"
                    measured = check.require(where, wanted, actual, limit, class_index=trajectory.class_index)
                    worst = worst if is_update else min(worst, measured)
        return worst

    def _compare_step(self, probe: Probe, outputs: Arrays) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """What is compared of one step: its latents, how they changed, and the history where it is read."""
        before, expected, actual = probe.latents, probe.expected, outputs["next_latents"]
        yield "", expected, actual
        yield _CHANGE, expected - before, actual - before
        # the last step of a multistep solver is of first order, so nobody reads what the one before it keeps
        if probe.denoised is not None and "next_history" in outputs and probe.index + 2 < self.reference.sampling.steps:
            yield "history of ", probe.denoised, outputs["next_history"]

    def _check_trajectories(
        self, subject: Subject, check: Gate, threshold_db: float
    ) -> tuple[tuple[float, ...], float]:
        """PSNR of each class, and the largest error of all."""
        measured, error = [], 0.0
        for trajectory in self.trajectories:
            index = trajectory.class_index
            loop, class_index = subject.choose(index)
            *_, final = loop.trajectory(trajectory.noise, class_index)
            expected = trajectory.latents[-1]
            measured.append(check.require("trajectory", expected, final, threshold_db, class_index=index))
            error = max(error, float(np.abs(expected - final).max()))
        return tuple(measured), error


def _showable_db(update: np.ndarray, probe: Probe, subject: Subject) -> float:
    largest = np.maximum(np.abs(probe.latents), np.abs(probe.expected))
    return showable_db(update, most_rounding(largest, subject.half_roundings))


def _as_saved(saved: SavedStep, probe: Probe, inputs: Mapping[str, np.ndarray]) -> Probe:
    """The probe with what the same step gives in fp32 with the weights that a package holds."""
    scalars = {"step_index": np.array([probe.index], np.int32), "guidance": np.array([probe.guidance], np.float32)}
    outputs = saved({**inputs, **scalars})
    return replace(probe, expected=outputs["next_latents"], denoised=outputs.get("next_history"))
