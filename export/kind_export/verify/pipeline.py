"""The pipeline of the diffusers folder, drawn with as a user does and held against the eager model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kind_core import precisions
from kind_core.closeness import MAX_DB, psnr_db
from kind_core.errors import VerificationError
from kind_core.precisions import PrecisionName
from kind_export.targets.diffusers.write import NAME
from kind_export.verify.reference import Reference, Trajectory


def check_pipeline(
    folder: Path, trajectories: Sequence[Trajectory], reference: Reference, precision: PrecisionName
) -> float:
    """Draw each class with one call of the pipeline, as a user does, and return the worst PSNR.

    Raises VerificationError below the gate.
    """
    from kind_runtimes.engines.diffusers import open_pipeline

    pipeline = open_pipeline(folder / NAME)
    pipeline.set_progress_bar_config(disable=True)
    worst, limit = MAX_DB, precisions.PRECISIONS[precision].trajectory_db
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
