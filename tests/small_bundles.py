"""Bundles for tests: one of placeholder files, and one whose small programs really run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kind_core.files.hashing import hash_file
from kind_export.targets.target import Lowering, TargetOptions, load_target
from kind_runtimes.bundle import MANIFEST_NAME, list_files
from kind_runtimes.manifest import FORMAT_VERSION, NOISE_GENERATOR, ProgramSpec, TensorSpec, describe_program

SHAPE = (1, 3, 16, 16)
STEPS = 4
GUIDANCE = 1.5
CLASSES = (("n02510455", ("giant panda", "panda bear")), ("n02509815", ("lesser panda", "red panda")))
SUFFIXES = {"coreml": ".mlpackage", "onnx": ".onnx", "executorch": ".pte"}
PRECISIONS = {"coreml": "fp16", "onnx": "fp32", "executorch": "fp32"}
DTYPES = {"float32": torch.float32, "int32": torch.int32}

_STATE = tuple(TensorSpec(name=name, shape=SHAPE, dtype="float32") for name in ("latents", "history"))
_SCALARS = tuple(TensorSpec(name=name, shape=(1,), dtype="int32") for name in ("step_index", "class_index"))
STEP_INPUTS = (*_STATE, *_SCALARS, TensorSpec(name="guidance", shape=(1,), dtype="float32"))
STEP_OUTPUTS = tuple(TensorSpec(name=f"next_{s.name}", shape=s.shape, dtype=s.dtype) for s in _STATE)


class SmallStep(nn.Module):
    """A step in which everything given matters: latents, history, step, class and guidance."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weights = nn.Parameter(torch.randn(3, 3, generator=generator) / 3)
        self.shares = nn.Parameter(torch.linspace(0.3, 0.9, STEPS)[:, None])
        self.pictures = nn.Parameter(torch.rand(len(CLASSES), math.prod(SHAPE), generator=generator) - 0.5)

    def forward(
        self, latents: Tensor, history: Tensor, step_index: Tensor, class_index: Tensor, guidance: Tensor
    ) -> tuple[Tensor, Tensor]:
        share = self.shares.index_select(0, step_index).reshape(1, 1, 1, 1)
        picture = self.pictures.index_select(0, class_index).reshape(SHAPE)
        mixed = torch.tanh((latents.permute(0, 2, 3, 1) @ self.weights).permute(0, 3, 1, 2))
        aim = mixed * 0.5 + picture * guidance.reshape(1, 1, 1, 1)
        return latents * (1 - share) + aim * share + history * 0.1, aim


class SmallDecode(nn.Module):
    """[-1, 1] to [0, peak]."""

    def __init__(self, peak: float) -> None:
        super().__init__()
        self.peak = peak

    def forward(self, latents: Tensor) -> Tensor:
        return (latents * 0.5 + 0.5).clamp(0, 1) * self.peak


def program_specs(target: str) -> dict[str, ProgramSpec]:
    """The two programs of a bundle."""
    image = TensorSpec(name="image", shape=SHAPE, dtype="image_rgb_uint8" if target == "coreml" else "float32")
    file = f"{target}/{{}}{SUFFIXES[target]}"
    return {
        "step": ProgramSpec(name="step", file=file.format("step"), inputs=STEP_INPUTS, outputs=STEP_OUTPUTS),
        "decode": ProgramSpec(name="decode", file=file.format("decode"), inputs=_STATE[:1], outputs=(image,)),
    }


def manifest_data(targets: Iterable[str], files: Mapping[str, str], /, **changes: Any) -> dict[str, Any]:
    """A manifest document; `files` are hashes by name, `changes` are its fields."""
    parity = {"verified_by": "a test", "threshold_db": 0, "trajectory_psnr_db": 0, "step_psnr_db": 0}
    data = {
        "format_version": FORMAT_VERSION,
        "name": "small",
        "classes": [{"id": class_id, "names": list(names)} for class_id, names in CLASSES],
        "steps": STEPS,
        "sampler": "dpmpp",
        "guidance_scale": GUIDANCE,
        "initial_noise_scale": 2.0,
        "latents_shape": list(SHAPE),
        "noise_generator": NOISE_GENERATOR,
        "source": {"checkpoint_sha256": "0" * 64},
        "tools": {},
        "targets": {
            target: {
                "precision": PRECISIONS[target],
                "programs": {name: describe_program(spec) for name, spec in program_specs(target).items()},
                "parity": parity,
            }
            for target in targets
        },
        "files": {name: {"sha256": sha256, "size_bytes": 0} for name, sha256 in files.items()},
    }
    return {**data, **changes}


def write_manifest(folder: Path, targets: Iterable[str], /, **changes: Any) -> None:
    """Write the manifest of the files that are in `folder`."""
    files = {name: hash_file(folder / name) for name in list_files(folder)}
    data = manifest_data(targets, files)
    for name, record in data["files"].items():
        record["size_bytes"] = (folder / name).stat().st_size
    (folder / MANIFEST_NAME).write_text(json.dumps({**data, **changes}), encoding="utf-8")


def write_placeholders(folder: Path, **changes: Any) -> None:
    """A bundle with every kind of file, none of which can be run."""
    package = ("Manifest.json", "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin")
    programs = [f"coreml/{name}.mlpackage/{part}" for name in ("step", "decode") for part in package]
    programs += [f"{t}/{name}{SUFFIXES[t]}" for t in ("onnx", "executorch") for name in ("step", "decode")]
    for name in (*programs, "golden.safetensors", "preview.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"what is in {name}".encode() * 20)
    (folder / "measured.json").write_text("{}")
    write_manifest(folder, SUFFIXES, **changes)


def lower_programs(folder: Path, targets: Iterable[str]) -> None:
    """A bundle of the small programs."""
    for target in targets:
        (folder / target).mkdir(parents=True)
        module = load_target(target)
        peak = 255.0 if module.ROW.gives_pictures else 1.0
        for spec, program in zip(program_specs(target).values(), (SmallStep(), SmallDecode(peak)), strict=True):
            example = tuple(torch.zeros(s.shape, dtype=DTYPES[s.dtype]) for s in spec.inputs)
            lowering = Lowering(
                name=spec.name, module=program.eval(), example=example, inputs=spec.inputs, outputs=spec.outputs
            )
            module.lower(lowering, folder / spec.file, TargetOptions(precision=PRECISIONS[target]))  # type: ignore[arg-type]
    write_manifest(folder, targets)


@torch.no_grad()
def eager_latents(noise: np.ndarray, class_index: int, guidance: float) -> np.ndarray:
    """What the loop of an app should give, by the module itself."""
    step = SmallStep()
    latents = torch.from_numpy(noise) * 2.0  # initial_noise_scale
    history = torch.zeros_like(latents)
    for index in range(STEPS):
        latents, history = step(
            latents, history, torch.tensor([index]), torch.tensor([class_index]), torch.tensor([guidance])
        )
    return latents.numpy()


def psnr_db(actual: np.ndarray, expected: np.ndarray) -> float:
    """With the range of `expected` as peak."""
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    return float(20 * np.log10(np.ptp(b) / max(np.sqrt(np.mean((a - b) ** 2)), 1e-12)))
