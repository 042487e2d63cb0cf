"""What an app's tests compare with: the eager model's inputs and outputs, and a preview made by the programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from kind_core.noise import picture_seed
from kind_core.pictures import make_class_grid
from kind_export.report.page import PREVIEW_CLASSES
from kind_export.verify.reference import Reference, Trajectory
from kind_runtimes.engine_rows import ENGINES
from kind_runtimes.generator import open_generator
from kind_runtimes.manifest import Manifest
from kind_runtimes.packs import read_pack

_PREVIEW_COLUMNS = 4
_PREVIEW_HEIGHT = 192  # pixels of a picture at least: large enough to look at


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
    """`preview.png`: a few pictures of the first classes under their names, made by the exported programs."""
    runtime = next(name for name in ENGINES if name in manifest.targets)
    generator = open_generator(folder, manifest.with_code(), runtime)
    if generator.decode is None:
        return
    chosen = [(generator, index, info) for index, info in enumerate(manifest.classes[:PREVIEW_CLASSES])]
    if manifest.packs:
        packs = manifest.packs[:PREVIEW_CLASSES]
        chosen = [(generator.with_pack(read_pack(folder / pack.file)), 0, pack.info) for pack in packs]
    seeds = [picture_seed(0, i) for i in range(_PREVIEW_COLUMNS)]
    rows = [(info, [drawer.picture(index, seed) for seed in seeds]) for drawer, index, info in chosen]
    make_class_grid(rows, _PREVIEW_HEIGHT).save(folder / "preview.png")
