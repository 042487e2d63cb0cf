"""Tiny bundles for the tests of the JavaScript runtime, and the pictures that this runtime draws from them.

`python tests/js_bundles.py FOLDER` writes them; tests/ must be on PYTHONPATH.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from kind_core.checkpoint import save_checkpoint
from kind_export.pipeline import export_bundle
from kind_export.request import ExportRequest
from kind_runtimes.generator import open_generator
from kind_runtimes.packs import read_pack
from tiny import tiny_config, tiny_model, tiny_model_config

SEEDS = (7, 2**40 + 3)
GUIDANCE = 0.8
CLASSES = ("lemon", "seashore")
BUNDLES: dict[str, dict[str, Any]] = {
    "plain": {"sampler": "dpmpp"},  # multistep: a step takes a history
    "interval": {"sampler": "ddim", "guidance_interval": (0.25, 0.75)},
    "base": {"sampler": "dpmpp", "packs": True},
}


def write_bundles(folder: Path) -> None:
    """`<name>.kind` of two classes each, `expected.safetensors` with Python's pictures, and a pack of another base."""
    checkpoint = _save_tiny(folder / "checkpoint", seed=0)
    expected = {}
    for name, options in BUNDLES.items():
        bundle = folder / f"{name}.kind"
        export_bundle(
            ExportRequest(classes=CLASSES, targets=("onnx",), checkpoint=checkpoint, output=bundle, **options)
        )
        expected |= {f"{name}.{key}": picture for key, picture in _draw(bundle).items()}
    save_file(expected, folder / "expected.safetensors")
    other = ExportRequest(
        classes=CLASSES, targets=("onnx",), checkpoint=_save_tiny(folder / "other", seed=1), packs=True,
        output=folder / "other.kind",
    )  # fmt: skip
    export_bundle(other)


def _save_tiny(folder: Path, seed: int) -> Path:
    model = tiny_model(tiny_config(depth=1), seed=seed)
    config = tiny_model_config(
        model.config, noise_schedule="squaredcos_cap_v2", prediction_type="sample", sampler="dpmpp", steps=4
    )
    save_checkpoint(folder, config, model)
    return folder


def _draw(bundle: Path) -> dict[str, np.ndarray]:
    """By `<class index>.<seed>`, float32 from 0 to 255: JavaScript's reader knows no bytes."""
    from kind_runtimes.bundle import open_bundle

    manifest = open_bundle(bundle).manifest
    generator = open_generator(bundle, manifest, "onnx")
    pictures = {}
    for index in range(len(CLASSES)):
        drawer, built_in = generator, index
        if manifest.packs:
            drawer, built_in = generator.with_pack(read_pack(bundle / manifest.packs[index].file)), 0
        for seed in SEEDS:
            picture = drawer.picture(built_in, seed, GUIDANCE)
            pictures[f"{index}.{seed}"] = np.ascontiguousarray(picture, dtype=np.float32)
    return pictures


if __name__ == "__main__":
    write_bundles(Path(sys.argv[1]))
