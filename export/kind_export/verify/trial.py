"""Where the programs of one export are tried, one target after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kind_core.closeness import MAX_DB, psnr_db
from kind_core.errors import VerificationError
from kind_core.precisions import PRECISIONS, PrecisionName
from kind_export.verify.gates import Verifier
from kind_export.verify.parity import Parity
from kind_export.verify.reference import Reference, Trajectory
from kind_export.verify.saved_step import SavedStep
from kind_runtimes.about import About
from kind_runtimes.loop import Loop, open_loop
from kind_runtimes.manifest import TargetSpec
from kind_runtimes.packs import Pack


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """The folder that programs are written into, what they are held against, and the classes of a base, in order."""

    folder: Path
    verifier: Verifier
    packs: tuple[Pack, ...]
    on_stage: Callable[[str], None]

    def open(self, target: TargetSpec) -> Loop:
        """Its programs; raises BundleError where one says of itself what it should not."""
        reference = self.verifier.reference
        about = About(classes=() if self.packs else reference.classes, sampling=reference.sampling)
        return open_loop(self.folder, target, about, self.verifier.trajectories[0].noise.shape)

    def check(self, loop: Loop, target: TargetSpec, saved: SavedStep | None = None) -> Parity:
        """How well opened programs do; raises VerificationError at the first gate that they fail."""
        self.on_stage(f"verifying {target.target}")
        return self.verifier.check(loop, target, self.packs, saved)


def check_pipeline(
    folder: Path, trajectories: Sequence[Trajectory], reference: Reference, precision: PrecisionName
) -> float:
    """Draw each class with one call of the pipeline, as a user does, and return the worst PSNR.

    Raises VerificationError below the gate.
    """
    from kind_export.targets.diffusers.write import NAME
    from kind_runtimes.engines.diffusers import open_pipeline

    pipeline = open_pipeline(folder / NAME)
    pipeline.set_progress_bar_config(disable=True)
    worst, limit = MAX_DB, PRECISIONS[precision].trajectory_db
    for trajectory in trajectories:
        info = reference.classes[trajectory.class_index]
        latents = pipeline(info.id, seed=0, output_type="latent").images.numpy()
        measured = psnr_db(trajectory.latents[-1], latents)
        if not measured >= limit:
            raise VerificationError(
                f"{NAME}: the pipeline's picture of {info.name!r} has {measured:.1f} dB against the eager "
                f"model, expected {limit:g} dB or more; nothing was published",
                "please report it with this command",
            )
        worst = min(worst, measured)
    return worst
