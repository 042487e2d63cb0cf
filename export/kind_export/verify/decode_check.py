"""The gates of a decode program: what is exact is held as exact, and a network may be noisy but not off on average."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kind_core.errors import VerificationError
from kind_core.precisions import EXACT, PRECISIONS
from kind_export.verify.parity import MAX_DB, Gate
from kind_export.verify.reference import DECODE_GAINS, Reference, Trajectory
from kind_runtimes.generator import Generator
from kind_runtimes.manifest import TargetSpec

# Pixels are clamped latents: bit for bit where that is computed in fp32, measured 77 dB where it is rounded to fp16.
PIXELS_DB = 100.0
ROUNDED_PIXELS_DB = 65.0
# Of a picture in 8 bits, against the rounded one: measured 62 dB where fp16 puts one value in 25 on the other side.
PICTURE_DB = 57.0
# Core ML's own conversion to 8 bits, on macOS, where the values before it cannot be seen.
PREDICTED_PICTURE_DB = 50.0
# A scale or an offset of the whole picture, beyond what noise explains; the offset is in levels of 8 bits.
_MAX_SCALE, _MAX_OFFSET, _NUM_SIGMAS = 0.002, 0.15, 4.0
_INSIDE = (0.02, 0.98)


def decode_threshold_db(reference: Reference, generator: Generator, target: TargetSpec, *, is_exact: bool) -> float:
    """What the pictures of a decode program are held to; `is_exact`: it is computed in fp32."""
    if reference.checkpoint.decoder is not None:
        return PRECISIONS[EXACT if target.precision == EXACT else "fp16"].step_db
    if "decode" not in target.programs or not target.programs["decode"].outputs[0].dtype.startswith("image"):
        return PIXELS_DB if is_exact else ROUNDED_PIXELS_DB
    return PICTURE_DB if hasattr(generator.decode, "before_saturation") else PREDICTED_PICTURE_DB


def check_decode(
    generator: Generator, check: Gate, trajectories: list[Trajectory], threshold_db: float, *, is_exact: bool
) -> float | None:
    """The worst PSNR of the pictures of all classes; raises VerificationError where one is not close enough."""
    if generator.decode is None:
        return None
    has_network = check.config.checkpoint.decoder is not None
    floats_db = threshold_db if has_network else PIXELS_DB if is_exact else ROUNDED_PIXELS_DB
    worst = MAX_DB
    for trajectory, latents in _latents(trajectories):
        index, expected = trajectory.class_index, check.config.decode(latents)
        image = generator.decode({"latents": latents})["image"]
        picture, values = _as_unit_image(image), None if image.dtype == np.uint8 else image
        rounded = np.rint(expected * 255) / 255 if image.dtype == np.uint8 else expected
        worst = min(worst, check.require("decode", rounded, picture, threshold_db, class_index=index))
        if hasattr(generator.decode, "before_saturation"):
            # a picture type clips by itself, but only the program's own clamp is the same on every device
            values = generator.decode.before_saturation({"latents": latents})["image"] / 255
            check.require("decode before saturation", expected, values, floats_db, class_index=index)
        if values is not None:
            _require_unbiased(expected, values, check.target)
    return worst


def _require_unbiased(expected: np.ndarray, actual: np.ndarray, target: str) -> None:
    """Raise VerificationError where a picture is brighter, darker, or of another contrast as a whole."""
    inside = (expected > _INSIDE[0]) & (expected < _INSIDE[1])
    x, error = expected[inside].astype(np.float64), (actual - expected)[inside].astype(np.float64)
    if len(x) < 16 or x.std() == 0:
        return
    centred = x - x.mean()
    scale = float(centred @ error / (centred @ centred))
    offset = float(error.mean()) * 255
    noise = float((error - error.mean() - scale * centred).std()) / len(x) ** 0.5
    is_scaled = abs(scale) > _MAX_SCALE + _NUM_SIGMAS * noise / x.std()
    if is_scaled or abs(offset) > _MAX_OFFSET + _NUM_SIGMAS * noise * 255:
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
