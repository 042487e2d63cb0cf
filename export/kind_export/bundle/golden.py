"""What an app's tests compare with: the eager model's inputs and outputs, and a preview made by the programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from kind_core.classes import ClassInfo
from kind_core.noise import picture_seed
from kind_core.pictures import make_class_grid
from kind_export.report.page import PREVIEW_CLASSES
from kind_export.verify.reference import Reference, Trajectory
from kind_runtimes.loop import Loop
from kind_runtimes.packs import Pack

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
            tensors[f"{prefix}.image"] = reference.decode(trajectory.latents[-1])
    # through Python, so that a full disk is the OSError that callers know
    file.write_bytes(save({name: np.ascontiguousarray(t) for name, t in tensors.items()}))


def write_preview(file: Path, loop: Loop, classes: Sequence[ClassInfo], packs: Sequence[Pack] = ()) -> None:
    """A few pictures of the first classes under their names, made by exported programs; of a base with its packs."""
    if loop.decode is None:
        return
    chosen = [(loop, index, info) for index, info in enumerate(classes[:PREVIEW_CLASSES])]
    if packs:
        chosen = [(loop.with_pack(pack), 0, info) for pack, (_, _, info) in zip(packs, chosen, strict=False)]
    seeds = [picture_seed(0, i) for i in range(_PREVIEW_COLUMNS)]
    rows = [(info, [drawer.picture(index, seed) for seed in seeds]) for drawer, index, info in chosen]
    make_class_grid(rows, _PREVIEW_HEIGHT).save(file)
