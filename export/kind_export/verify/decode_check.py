"""The gates of a decode program: what is exact is held as exact, and a network may be noisy but not off on average."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kind_core.closeness import MAX_DB
from kind_core.errors import VerificationError
from kind_core.precisions import EXACT, PRECISIONS
from kind_export.compact.decode import DECODE_GAINS
from kind_export.verify.parity import Gate
from kind_export.verify.reference import Reference, Trajectory
from kind_runtimes.loop import Loop
from kind_runtimes.manifest import TargetSpec

# Pixels are clamped latents, bit for bit where that is computed in fp32. Rounded to fp16 they have 77 dB as a rule, but
# pixels of one colour may share the worst of its roundings: 0.16 of a level of 8 bits, or 64.3 dB. By as much may a
# picture in 8 bits be off beyond the half level that rounding takes; rounded down it has 62.
PIXELS_DB = 100.0
ROUNDED_PIXELS_DB = 63.0
# Core ML's own conversion to 8 bits, on macOS, where the values before it cannot be seen: it may round down.
PREDICTED_PICTURE_DB = 57.0
# The range of a picture, whatever the reference's own is: of a class of nearly one colour it would be next to nothing.
_PEAK = 1.0
# A scale or an offset of the whole picture, beyond what noise explains. The offset is in levels of 8 bits, and so is
# what a scale does to pixels one standard deviation off the mean: of nearly one colour, rounding looks like a scale.
_MAX_SCALE, _MAX_LEVELS, _NUM_SIGMAS = 0.002, 0.2, 4.0
_NETWORK_SLACK = 2.5  # a network rounds more often
_INSIDE = (0.02, 0.98)


def decode_threshold_db(reference: Reference, loop: Loop, target: TargetSpec, *, is_exact: bool) -> float:
    """What the pictures of a decode program are held to; `is_exact`: it is computed in fp32."""
    if reference.checkpoint.decoder is not None:
        return PRECISIONS[EXACT if target.precision == EXACT else "fp16"].step_db
    if "decode" not in target.programs or not target.programs["decode"].outputs[0].dtype.startswith("image"):
        return PIXELS_DB if is_exact else ROUNDED_PIXELS_DB
    return ROUNDED_PIXELS_DB if hasattr(loop.decode, "before_saturation") else PREDICTED_PICTURE_DB


def check_decode(
    loop: Loop, check: Gate, trajectories: list[Trajectory], threshold_db: float, *, is_exact: bool
) -> float | None:
    """The worst PSNR of the pictures of all classes; raises VerificationError where one is not close enough."""
    if loop.decode is None:
        return None
    has_network = check.config.checkpoint.decoder is not None
    floats_db = threshold_db if has_network else PIXELS_DB if is_exact else ROUNDED_PIXELS_DB
    worst = MAX_DB
    for trajectory, latents in _latents(trajectories):
        index, expected = trajectory.class_index, check.config.decode(latents)
        image = loop.decode({"latents": latents})["image"]
        picture, values = _as_unit_image(image), None if image.dtype == np.uint8 else image
        # what a right picture in 8 bits may be, up to half a level off
        nearest = picture.clip(expected - 0.5 / 255, expected + 0.5 / 255) if image.dtype == np.uint8 else expected
        worst = min(worst, check.require("decode", nearest, picture, threshold_db, class_index=index, peak=_PEAK))
        if hasattr(loop.decode, "before_saturation"):
            # a picture type clips by itself, but only the program's own clamp is the same on every device
            values = loop.decode.before_saturation({"latents": latents})["image"] / 255
            check.require("decode before saturation", expected, values, floats_db, class_index=index, peak=_PEAK)
        if values is not None:
            _require_unbiased(expected, values, check.target, _NETWORK_SLACK if has_network else 1.0)
    return worst


def _require_unbiased(expected: np.ndarray, actual: np.ndarray, target: str, slack: float) -> None:
    """Raise VerificationError where a picture is brighter, darker, or of another contrast as a whole."""
    inside = (expected > _INSIDE[0]) & (expected < _INSIDE[1])
    x, error = expected[inside].astype(np.float64), (actual - expected)[inside].astype(np.float64)
    if len(x) < 16 or x.std() == 0:
        return
    centred = x - x.mean()
    scale = float(centred @ error / (centred @ centred))
    offset = float(error.mean()) * 255
    noise = float((error - error.mean() - scale * centred).std()) / len(x) ** 0.5
    is_visible = abs(scale) * x.std() * 255 > _MAX_LEVELS * slack
    is_scaled = is_visible and abs(scale) > _MAX_SCALE * slack + _NUM_SIGMAS * noise / x.std()
    if is_scaled or abs(offset) > _MAX_LEVELS * slack + _NUM_SIGMAS * noise * 255:
        raise VerificationError(
            f"{target}: decode gives pictures of {100 * (1 + scale):.2f} % of the contrast, {offset:+.2f} of 255 "
            "levels off on average, expected those of the eager model; nothing was published",
            "please report it with this command",
        )


def _latents(trajectories: list[Trajectory]) -> Iterator[tuple[Trajectory, np.ndarray]]:
    for trajectory in trajectories:
        for gain in DECODE_GAINS:
            yield trajectory, (trajectory.latents[-1] * gain).astype(np.float32)


def _as_unit_image(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:  # (height, width, 3)
        return image.transpose(2, 0, 1)[None].astype(np.float32) / 255
    return image
