"""What an app's tests compare with: the eager model's inputs and outputs, and a preview made by the programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save

from kind_core.noise import picture_seed
from kind_core.pictures import make_grid
from kind_export.verify.reference import Reference, Trajectory
from kind_runtimes.engine_rows import ENGINES
from kind_runtimes.generator import open_generator
from kind_runtimes.manifest import Manifest
from kind_runtimes.packs import read_pack

_PREVIEW_CLASSES = 8
_PREVIEW_COLUMNS = 4


def write_golden(file: Path, trajectories: Sequence[Trajectory], reference: Reference) -> None:
    """For class index c: `c.noise`, `c.latents` (steps + 1, ...), the scaled noise first, and `c.image` in [0, 1].

    Of a base c counts the packs of the manifest, and the number after the last is the learngene alone.
    """
    tensors: dict[str, np.ndarray] = {}
    for trajectory in trajectories:
        prefix = str(trajectory.class_index)
        tensors[f"{prefix}.noise"] = trajectory.noise
        tensors[f"{prefix}.latents"] = np.concatenate(trajectory.latents)
        if trajectory.noise.shape[1] == 3 or reference.checkpoint.decoder is not None:
            tensors[f"{prefix}.image"] = reference.image(trajectory)
    # through Python, so that a full disk is the OSError that callers know
    file.write_bytes(save({name: np.ascontiguousarray(t) for name, t in tensors.items()}))


def write_preview(folder: Path, manifest: Manifest) -> None:
    """`preview.png`: a few pictures of the first classes, made by the exported programs."""
    runtime = next(name for name in ENGINES if name in manifest.targets)
    generator = open_generator(folder, manifest.with_code(), runtime)
    if generator.decode is None:
        return
    chosen = [(generator, index) for index in range(min(_PREVIEW_CLASSES, len(manifest.classes)))]
    if manifest.packs:
        chosen = [(generator.with_pack(read_pack(folder / pack.file)), 0) for pack in manifest.packs[:_PREVIEW_CLASSES]]
    pictures = [drawer.picture(index, picture_seed(0, i)) for drawer, index in chosen for i in range(_PREVIEW_COLUMNS)]
    grid: Image.Image = make_grid(pictures, _PREVIEW_COLUMNS)
    grid.save(folder / "preview.png")
