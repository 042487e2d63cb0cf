"""The gates: how close is measured, what is too far, and what is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import cast

import numpy as np

from kind_core.closeness import MAX_DB, psnr_db
from kind_core.errors import VerificationError
from kind_export.verify.reference import Reference
from kind_runtimes.documents.reports.targets import ReportParity

# A Core ML package is also evaluated without its activation rounding, where only the fp16 of its weights is left and a
# wrong graph has nowhere to hide.
GRAPH_DB = 50.0
# How straight a step is in the guidance scale: measured 117 dB and more where guidance is computed in fp32, 39 and more
# where it is rounded to fp16. A slope below this share of the latents is no slope.
LINE_DB = 60.0
ROUNDED_LINE_DB = 15.0
MIN_SLOPE = 1e-4
REPORT = "please report it with this command"
# Late in a long run, or where latents are large, a step changes them by less than their number format's spacing at that
# size: no gate may ask for more. A step rounds what it takes of the latents, their coefficient, product and sum, each
# by half a spacing at most.
ROUNDINGS = 4


def most_rounding(latents: np.ndarray, half_roundings: int) -> np.ndarray:
    """How far each number of `latents` may be off after a right step, which rounds them in fp32, and as often as
    `half_roundings` to fp16."""
    shares = ((half_roundings, np.float16), (ROUNDINGS, np.float32))
    share = sum(count * float(np.finfo(dtype).eps) / 2 for count, dtype in shares)
    return np.asarray(share * np.abs(latents.astype(np.float64)))


def showable_db(difference: np.ndarray, rounding: np.ndarray) -> float:
    """The PSNR of a difference of latents each of whose numbers is off by `rounding`: a right step has it or more."""
    return psnr_db(difference, difference + rounding)


class ShortfallError(VerificationError):
    """A program that is whole but not close enough, by `shortfall_db`: fewer bits for some layers are too few."""

    def __init__(self, message: str, hint: str, shortfall_db: float) -> None:
        super().__init__(message, hint)
        self.shortfall_db = shortfall_db


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """How close the programs of a target are to the eager model: the worst case over classes, steps and guidance.

    `rounded_by` ran them a second time, where the kernels of `verified_by` are wider than the precision says.
    """

    verified_by: str
    threshold_db: float
    trajectory_psnr_db: float
    trajectory_max_error: float
    step_psnr_db: float
    step_threshold_db: float
    decode_psnr_db: float | None
    decode_threshold_db: float
    num_classes: int
    step_indices: tuple[int, ...]
    guidance_scales: tuple[float, ...]
    class_psnr_db: tuple[float, ...] = ()
    detached_psnr_db: float | None = None
    rounded_by: str | None = None

    def to_dict(self) -> ReportParity:
        """For manifest and report; the trajectory without a pack and a second run only where they were made."""
        rounded = {k: round(v, 2) if k.endswith("_db") and isinstance(v, float) else v for k, v in asdict(self).items()}
        del rounded["class_psnr_db"]
        for name in ("detached_psnr_db", "rounded_by"):
            if rounded[name] is None:
                del rounded[name]
        tried = {"step_indices": list(self.step_indices), "guidance_scales": list(self.guidance_scales)}
        return cast(ReportParity, rounded | tried)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """What a program of `target` is held to, against the model of `config`; `hint` is what to do where it fails."""

    target: str
    config: Reference
    hint: str = REPORT

    def require(
        self,
        what: str,
        expected: np.ndarray,
        actual: np.ndarray,
        threshold_db: float,
        *,
        class_index: int | None,
        peak: float | None = None,
    ) -> float:
        """The PSNR, or VerificationError below the threshold. Without a class it is the learngene alone."""
        measured = psnr_db(expected, actual, peak)
        if not np.isfinite(expected).all():
            raise VerificationError(
                f"{what}: the eager model itself gives NaN or infinity; nothing was published", "train it again"
            )
        if not measured >= threshold_db or not np.isfinite(actual).all():  # NaN passes no threshold
            classes = self.config.classes
            name = "the learngene alone" if class_index is None else f"class {classes[class_index].name!r}"
            result = "NaN or infinity" if measured == -MAX_DB else f"{measured:.1f} dB"
            message = (
                f"{self.target}: {what} of {name} has {result} against the eager model, "
                f"expected {threshold_db:g} dB or more; nothing was published"
            )
            if measured == -MAX_DB:
                raise VerificationError(message, self.hint)
            raise ShortfallError(message, self.hint, threshold_db - measured)
        return measured


def worst_of(runs: Sequence[Parity]) -> Parity:
    """The parity of programs that were run in one or two ways."""
    decoded = [run.decode_psnr_db for run in runs if run.decode_psnr_db is not None]
    return replace(
        runs[0],
        rounded_by=runs[1].verified_by if len(runs) > 1 else None,
        trajectory_psnr_db=min(run.trajectory_psnr_db for run in runs),
        trajectory_max_error=max(run.trajectory_max_error for run in runs),
        step_psnr_db=min(run.step_psnr_db for run in runs),
        decode_psnr_db=min(decoded) if decoded else None,
        class_psnr_db=tuple(min(one) for one in zip(*(run.class_psnr_db for run in runs), strict=True)),
    )
