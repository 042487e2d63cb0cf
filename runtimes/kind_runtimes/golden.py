"""Programs and golden data of a bundle belong to one model: tried by one step and one decode, before pictures count.

The first step, from start noise, is where models and classes differ most: measured at 4 to 24 dB between classes of one
model, at 37 (int4) to 110 dB (fp32) between a program and its own golden data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from kind_core.closeness import MAX_DB, psnr_db
from kind_core.errors import BundleError
from kind_core.precisions import PRECISIONS
from kind_runtimes.about import PREFIX
from kind_runtimes.loop import Loop, to_pixels
from kind_runtimes.manifest import Manifest

GOLDEN_NAME = "golden.safetensors"
_HINT = "they are of another model, or this engine computes wrongly; copy or export the bundle again"
_PICTURE_DB = 30.0  # a decoder is held to 50 and more when it is exported
_MARGIN_DB = 6.0  # by which another class has to be nearer, for classes that hardly differ
_MAX_OTHERS = 16


def check_golden(folder: Path, manifest: Manifest, loop: Loop, target: str, class_index: int | None) -> None:
    """Raise BundleError where the opened programs of `target` do not do what the bundle's golden data show.

    `class_index` counts the classes of the manifest, of a base those of its packs, one of which the loop then has
    attached; None is the learngene alone, or a class that came later. A loop of captions has the bundle's own. A bundle
    without golden data is held to nothing.
    """
    if GOLDEN_NAME not in manifest.files or (class_index is None and loop.pack is not None):
        return
    file = folder / GOLDEN_NAME
    own = len(manifest.packs) if class_index is None else class_index
    try:
        with safe_open(file, framework="numpy") as opened:
            starts = _read_starts(opened, manifest, own)
            latents = opened.get_slice(f"{own}.latents")[manifest.sampling.steps :]
            image = opened.get_tensor(f"{own}.image") if f"{own}.image" in opened.keys() else None  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as error:
        raise BundleError(f"{file} holds no golden data of this bundle: {error}", _HINT) from error
    _check_step(file, manifest, loop, target, own, starts)
    if image is not None and loop.decode is not None:
        _check_picture(file, loop, latents, image)


def _read_starts(opened: Any, manifest: Manifest, own: int) -> dict[int, np.ndarray]:
    """The first two latents of a class and of some others, (2, channels, height, width), by number."""
    count = len(manifest.packs) + 1 if manifest.pack_base is not None else len(manifest.classes)
    shape = [manifest.sampling.steps + 1, *manifest.latents_shape[1:]]
    starts = {}
    for index in {own, *range(min(count, _MAX_OTHERS))}:
        held = opened.get_slice(f"{index}.latents")
        if held.get_shape() != shape or held.get_dtype() != "F32":
            raise TypeError(f"{index}.latents is {held.get_dtype()} {held.get_shape()}, expected F32 {shape}")
        starts[index] = held[:2]
    return starts


def _check_step(
    file: Path, manifest: Manifest, loop: Loop, target: str, own: int, starts: dict[int, np.ndarray]
) -> None:
    before = starts[own][:1]
    inputs = {"latents": before, **loop.choose_class(0 if manifest.pack_base is not None else own)}
    if "history" in loop.input_names:
        inputs["history"] = np.zeros_like(before)
    change = loop.run_step(inputs, 0, _golden_guidance(manifest, loop))["next_latents"] - before
    measured = {index: psnr_db(start[1:] - start[:1], change) for index, start in starts.items()}
    limit = _limit_db(manifest, target)
    if not measured[own] >= limit:
        raise BundleError(
            f"{file} and the {target} programs do not belong together: the first step of class {own} is at "
            f"{measured[own]:.1f} dB, expected {limit:g} dB or more",
            _HINT,
        )
    nearest = max(measured, key=measured.__getitem__)
    if measured[nearest] > measured[own] + _MARGIN_DB:
        raise BundleError(
            f"{file} and the {target} programs do not belong together: what they draw as class {own} is class "
            f"{nearest} there",
            _HINT,
        )


def _check_picture(file: Path, loop: Loop, latents: np.ndarray, image: np.ndarray) -> None:
    drawn, expected = loop.decode_picture(latents), to_pixels(image)
    measured = psnr_db(expected, drawn, 255.0) if drawn.shape == expected.shape else -MAX_DB
    if not measured >= _PICTURE_DB:
        raise BundleError(
            f"{file} and the programs do not belong together: a decoded picture is at {measured:.1f} dB, expected "
            f"{_PICTURE_DB:g} dB or more",
            _HINT,
        )


def _golden_guidance(manifest: Manifest, loop: Loop) -> float:
    """The scale at which the data were made: the default that the programs name, whatever the manifest was given."""
    text = getattr(loop.step, "texts", {}).get(f"{PREFIX}guidance_scale")
    try:
        return manifest.guidance_scale if text is None else float(text)
    except ValueError as error:
        raise BundleError(f"the step program says guidance_scale {text:.60}, expected a number", _HINT) from error


def _limit_db(manifest: Manifest, target: str) -> float:
    """What an export holds the change of a step to: of the precision whose gate the programs passed."""
    gate = manifest.data["targets"][target]["parity"]["threshold_db"]
    rows = [one for one in PRECISIONS.values() if one.trajectory_db == gate]
    return min(one.update_db for one in rows or PRECISIONS.values())
