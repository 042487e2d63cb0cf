"""Verification: each program, run by its own runtime, against the gated model under the diffusers scheduler.

Checked for every class: single steps at several step indices and two guidance scales from the reference's own latents,
the whole trajectory, no NaN, and the decoder. PSNR is in dB on unclamped latents with the reference's range as peak.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from kind_core.errors import VerificationError
from kind_core.precisions import APPROXIMATE, EXACT, PRECISIONS
from kind_export.compact.decode import DECODE_GAINS
from kind_export.verify.parity import DECODE_DB, GRAPH_DB, MAX_DB, Gate, Parity, worst_of
from kind_export.verify.reference import Reference, Trajectory
from kind_export.verify.saved_step import SavedStep
from kind_runtimes.engines.runtime import Arrays
from kind_runtimes.generator import Generator, open_generator
from kind_runtimes.manifest import Manifest, TargetSpec
from kind_runtimes.packs import Pack, read_pack


def step_indices(steps: int) -> tuple[int, ...]:
    """First, second, a quarter, the middle and the last: the ends are where tables are off by one."""
    return tuple(sorted({0, min(1, steps - 1), steps // 4, steps // 2, steps - 1}))


def guidance_scales(guidance: float) -> tuple[float, ...]:
    """The default, and one that differs from it clearly."""
    return guidance, guidance + 1.5


class Verifier:
    """Holds the reference's trajectories of all classes, computed once for all targets.

    `is_approximate`: more than rounding is lost on purpose, so the gates are those of few bits.
    """

    def __init__(self, reference: Reference, *, is_approximate: bool = False) -> None:
        self.reference = reference
        self.is_approximate = is_approximate
        self.trajectories: list[Trajectory] = []
        for index in range(len(reference.classes)):
            trajectory = reference.run(index)
            reference.require_testable(trajectory)
            self.trajectories.append(trajectory)
        self._steps = {
            (t.class_index, i, scale): reference.step(t, i, scale)
            for t in self.trajectories
            for i in step_indices(reference.sampling.steps)
            for scale in guidance_scales(reference.sampling.guidance_scale)
        }

    def verify(self, folder: Path, manifest: Manifest, target: TargetSpec, saved: SavedStep | None = None) -> Parity:
        """Check the programs of `target` in the folder of an export; raises VerificationError at the first that fails.

        `saved` is what a Core ML package should compute where it is not the eager model, up to rounding.
        """
        packs = tuple(read_pack(folder / pack.file) for pack in manifest.packs)
        return self.check(open_generator(folder, manifest.with_code(), target.target), target, packs, saved)

    def check(
        self, generator: Generator, target: TargetSpec, packs: Sequence[Pack] = (), saved: SavedStep | None = None
    ) -> Parity:
        """The same for opened programs. Of a base the classes are `packs`, in order."""
        precision = self._gated_precision(target, packs)
        detached = self._run_detached(generator) if packs else None
        runs = [
            self._check_run(run, Gate(target=run.describe(target), config=self.reference), target, precision, saved)
            for run in _ways_to_run(_Subject(generator=generator, packs=tuple(packs)), target)
        ]
        parity = worst_of(runs)
        if detached is None:
            return parity
        check = Gate(target=target.target, config=self.reference)
        return replace(parity, detached_psnr_db=self._check_detached(generator, check, detached, target))

    def _check_run(
        self, subject: _Subject, check: Gate, target: TargetSpec, precision: str, saved: SavedStep | None
    ) -> Parity:
        """All that is held of programs as one engine runs them."""
        step_db = self._check_steps(subject, check, PRECISIONS[precision].step_db, PRECISIONS[precision].update_db)
        class_db, error = self._check_trajectories(subject, check, PRECISIONS[precision].trajectory_db)
        if hasattr(subject.generator.step, "without_rounding"):
            self._check_graph(subject, check, saved)
        return Parity(
            verified_by=subject.generator.step.engine,
            threshold_db=PRECISIONS[precision].trajectory_db,
            trajectory_psnr_db=min(class_db),
            trajectory_max_error=error,
            step_psnr_db=step_db,
            step_threshold_db=PRECISIONS[precision].step_db,
            decode_psnr_db=self._check_decode(subject.generator, check, self._decode_threshold_db(target)),
            decode_threshold_db=self._decode_threshold_db(target),
            num_classes=len(self.trajectories),
            step_indices=step_indices(self.reference.sampling.steps),
            guidance_scales=guidance_scales(self.reference.sampling.guidance_scale),
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

    def _check_graph(self, subject: _Subject, check: Gate, saved: SavedStep | None) -> None:
        """A Core ML package without the rounding of activations: where only weights are rounded nothing else hides."""
        programs = {"step": subject.generator.step, "step_unguided": subject.generator.step_unguided}
        exact = {name: p.without_rounding() for name, p in programs.items() if p is not None}  # type: ignore[attr-defined]
        unrounded = replace(subject, generator=replace(subject.generator, decode=None, **exact))
        update_db = PRECISIONS[EXACT].update_db - 10
        if saved is None:
            self._check_steps(unrounded, check, GRAPH_DB, update_db, what="step without rounding")
            return
        for trajectory in self.trajectories:
            generator, class_index = unrounded.choose(trajectory.class_index)
            for i in (i for i in step_indices(self.reference.sampling.steps) if self.reference.sampling.guided[i]):
                inputs = step_inputs(generator, class_index, trajectory, i)
                guidance = self.reference.sampling.guidance_scale
                actual = generator.run_step(inputs, i, guidance)["next_latents"]
                scalars = {"step_index": np.array([i], np.int32), "guidance": np.array([guidance], np.float32)}
                expected = saved({**inputs, **scalars})["next_latents"]
                what = f"step {i} without rounding, weights as saved,"
                check.require(what, expected, actual, GRAPH_DB, class_index=trajectory.class_index)

    def _run_detached(self, generator: Generator) -> list[np.ndarray]:
        return list(
            generator.without_pack().trajectory(self.learngene.noise, 0, self.reference.sampling.guidance_scale)
        )

    def _check_detached(self, generator: Generator, check: Gate, before: list[np.ndarray], target: TargetSpec) -> float:
        """Without a pack the base is the learngene alone, with the bits that it had before packs were attached."""
        limit = PRECISIONS[target.precision].trajectory_db
        measured = check.require("trajectory", self.learngene.latents[-1], before[-1], limit, class_index=None)
        after = self._run_detached(generator)
        if not all(np.array_equal(a, b) for a, b in zip(before, after, strict=True)):
            raise VerificationError(
                f"{target.target}: the base without a pack gives other bits than before packs were attached; "
                "nothing was published",
                "please report it with this command",
            )
        return measured

    def _check_steps(
        self, subject: _Subject, check: Gate, threshold_db: float, update_db: float, what: str = "step"
    ) -> float:
        worst = MAX_DB
        for trajectory in self.trajectories:
            generator, class_index = subject.choose(trajectory.class_index)
            for i in step_indices(self.reference.sampling.steps):
                for scale in guidance_scales(self.reference.sampling.guidance_scale):
                    outputs = generator.run_step(step_inputs(generator, class_index, trajectory, i), i, scale)
                    where = f"{what} {i} at guidance {scale:g}"
                    for part in self._compare_step(trajectory, i, scale, outputs):
                        limit = update_db if part.is_update else threshold_db
                        measured = check.require(
                            f"{part.name}{where}", part.expected, part.actual, limit, class_index=trajectory.class_index
                        )
                        worst = worst if part.is_update else min(worst, measured)
        return worst

    def _compare_step(self, trajectory: Trajectory, index: int, guidance: float, outputs: Arrays) -> Iterator[_Part]:
        """What is compared of one step: its latents, how they changed, and the history where it is read."""
        before = trajectory.latents[index]
        expected, denoised = self._steps[trajectory.class_index, index, guidance]
        actual = outputs["next_latents"]
        yield _Part(name="", expected=expected, actual=actual)
        yield _Part(name="change in ", expected=expected - before, actual=actual - before, is_update=True)
        # the last step of a multistep solver is of first order, so nobody reads what the one before it keeps
        if denoised is not None and "next_history" in outputs and index + 2 < self.reference.sampling.steps:
            yield _Part(name="history of ", expected=denoised, actual=outputs["next_history"])

    def _check_trajectories(
        self, subject: _Subject, check: Gate, threshold_db: float
    ) -> tuple[tuple[float, ...], float]:
        """PSNR of each class, and the largest error of all."""
        measured, error = [], 0.0
        for trajectory in self.trajectories:
            index = trajectory.class_index
            generator, class_index = subject.choose(index)
            *_, final = generator.trajectory(trajectory.noise, class_index, self.reference.sampling.guidance_scale)
            expected = trajectory.latents[-1]
            measured.append(check.require("trajectory", expected, final, threshold_db, class_index=index))
            error = max(error, float(np.abs(expected - final).max()))
        return tuple(measured), error

    def _decode_threshold_db(self, target: TargetSpec) -> float:
        """An autoencoder is a network, so where it may be rounded to fp16 it is held to what a step is held to."""
        has_network = self.reference.checkpoint.decoder is not None
        return PRECISIONS["fp16"].step_db if has_network and target.precision != EXACT else DECODE_DB

    def _check_decode(self, generator: Generator, check: Gate, threshold_db: float) -> float | None:
        if generator.decode is None:
            return None
        worst = MAX_DB
        for trajectory in self.trajectories:
            for gain in DECODE_GAINS:
                latents = (trajectory.latents[-1] * gain).astype(np.float32)
                expected = self.reference.decode(latents)
                index = trajectory.class_index
                actual = _as_unit_image(generator.decode({"latents": latents}))
                worst = min(worst, check.require("decode", expected, actual, threshold_db, class_index=index))
                if hasattr(generator.decode, "before_saturation"):
                    # a picture type clips by itself, but only the program's own clamp is the same on every device
                    actual = generator.decode.before_saturation({"latents": latents})["image"] / 255
                    check.require("decode before saturation", expected, actual, threshold_db, class_index=index)
        return worst


@dataclass(frozen=True, kw_only=True, slots=True)
class _Subject:
    """Opened programs, and the packs of the classes where the programs hold none."""

    generator: Generator
    packs: tuple[Pack, ...]
    is_rounded: bool = False

    def choose(self, class_index: int) -> tuple[Generator, int]:
        """What draws a class, and the index that it has there."""
        if not self.packs:
            return self.generator, class_index
        return self.generator.with_pack(self.packs[class_index]), 0

    def describe(self, target: TargetSpec) -> str:
        """The target, for an error."""
        return f"{target.target} with each result rounded to {target.precision}" if self.is_rounded else target.target


def _ways_to_run(subject: _Subject, target: TargetSpec) -> list[_Subject]:
    """As the runtime runs it here; and where its kernels are wider than the precision says, in that precision too."""
    generator = subject.generator
    if not PRECISIONS[target.precision].is_half or not hasattr(generator.step, "node_by_node"):
        return [subject]
    programs = {"step": generator.step, "step_unguided": generator.step_unguided, "decode": generator.decode}
    rounded = {name: one.node_by_node() for name, one in programs.items() if one is not None}  # type: ignore[attr-defined]
    return [subject, replace(subject, generator=replace(generator, **rounded), is_rounded=True)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """One pair of arrays to compare. An update is a difference of latents, which has a threshold of its own."""

    name: str
    expected: np.ndarray
    actual: np.ndarray
    is_update: bool = False


def step_inputs(generator: Generator, class_index: int, trajectory: Trajectory, index: int) -> Mapping[str, np.ndarray]:
    """What a step takes at step `index` of the reference's trajectory, but the index itself and the guidance."""
    inputs = {**generator.choose_class(class_index), "latents": trajectory.latents[index]}
    if "history" in generator.input_names:
        inputs["history"] = trajectory.denoised[index - 1] if index else np.zeros_like(trajectory.latents[0])
    return inputs


def _as_unit_image(outputs: Arrays) -> np.ndarray:
    image = outputs["image"]
    if image.dtype == np.uint8:  # (height, width, 3)
        return image.transpose(2, 0, 1)[None].astype(np.float32) / 255
    return image
