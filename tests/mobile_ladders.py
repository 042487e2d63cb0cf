"""What the kits must find of compute units that draw wrong: part of `vectors.json`, see `mobile_vectors`.

A unit is the toy with a fault, written again in the tests of each kit:

    none        the toy as it is
    nan, zeros  the latents of a step are that
    mirrored    the latents of a step are mirrored, left and right
    picture     the picture is mirrored, left and right; the latents are right
    rounded     the latents of a step are multiplied by 1 + 2 ** -11
    stall       a step does not end
    hang        opening the programs does not end
    load        opening the programs fails
    step        a step fails
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from safetensors.numpy import save

from kind_core.closeness import psnr_db
from kind_core.noise import start_noise
from kind_runtimes.engines.runtime import Arrays, Program
from kind_runtimes.generator import Generator
from kind_runtimes.manifest import Manifest

FEW_STEPS = 3
_NPU, _GPU, _CPU = ("npu", "gpu", "cpu")


class FaultyProgram:
    """A program with a fault in what it gives back."""

    engine = "faulty"

    def __init__(self, program: Program, fault: str) -> None:
        self._program, self._fault = program, fault

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        outputs = dict(self._program(inputs))
        if "next_latents" in outputs:
            outputs["next_latents"] = _spoil(outputs["next_latents"], self._fault)
        return outputs


def _spoil(latents: np.ndarray, fault: str) -> np.ndarray:
    match fault:
        case "nan":
            return np.full_like(latents, np.nan)
        case "zeros":
            return np.zeros_like(latents)
        case "mirrored":
            return latents[..., ::-1].copy()
        case "rounded":
            return latents * np.float32(1 + 2**-11)
    return latents


def golden_bytes(generator: Generator, index: int, prefix: int) -> bytes:
    """`golden.safetensors` of one trajectory, as an export writes it."""
    manifest = generator.manifest
    noise = start_noise(3, manifest.latents_shape)
    steps = list(generator.trajectory(noise, index))
    scaled = noise * np.float32(manifest.sampling.initial_noise_scale)
    assert generator.decode is not None
    image = generator.decode({"latents": steps[-1]})["image"].clip(0, 1)
    tensors = {
        f"{prefix}.noise": noise,
        f"{prefix}.latents": np.concatenate([scaled, *steps]),
        f"{prefix}.image": image,
    }
    return save({name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()})


def ladder(
    what: str,
    generator: Generator,
    data: Mapping[str, Any],
    units: Mapping[str, str],
    takes: str | None,
    prefix: int = 0,
) -> dict[str, Any]:
    """A ladder of `units`, faults by kind; `takes` is the kind that draws."""
    tried = [_try(generator, kind, fault) for kind, fault in units.items()]
    for one in tried:
        one["is_taken"] = one["kind"] == takes
    reached = tried if takes is None else tried[: list(units).index(takes) + 1]
    return {
        "what": what, "manifest": json.loads(json.dumps(data)), "units": dict(units), "expected": reached,
        "golden": base64.b64encode(golden_bytes(generator, 0, prefix)).decode(),
    }  # fmt: skip


def few_steps(manifest: Manifest) -> int:
    """As many as it takes to have run a step with guidance and one without, three at least."""
    flags = manifest.sampling.guided
    return min(len(flags), max(FEW_STEPS, *(flags.index(flag) + 1 for flag in set(flags))))


def _try(generator: Generator, kind: str, fault: str) -> dict[str, Any]:
    """The worst of the first steps on a unit with a fault, where they end."""
    if fault in ("stall", "hang", "load", "step"):
        return {"kind": kind, "psnr_db": None}
    steps = few_steps(generator.manifest)
    spoilt = replace(
        generator,
        step=FaultyProgram(generator.step, fault),
        step_unguided=generator.step_unguided and FaultyProgram(generator.step_unguided, fault),
    )
    noise = start_noise(3, generator.manifest.latents_shape)
    pairs = list(zip(generator.trajectory(noise, 0), spoilt.trajectory(noise, 0), strict=True))[:steps]
    return {"kind": kind, "psnr_db": round(min(psnr_db(right, wrong) for right, wrong in pairs), 2)}


def list_failures() -> list[dict[str, Any]]:
    """Starts of an app whose NPU gave nothing, right or wrong: the hour of each, the NPU's fault then, whether it is
    tried, and what draws. The ladder is the one that begins with a stall.
    """
    return [
        _starts("a busy phone", (0, "stall", True, _CPU), (23, "none", False, _CPU), (24, "none", True, _NPU)),
        _starts("in the background", (0, "step", True, _CPU), (23, "none", False, _CPU), (24, "none", True, _NPU)),
        _starts("no driver", (0, "load", True, _CPU), (24, "load", True, _CPU), (9999, "none", False, _CPU)),
        _starts("wrong at once", (0, "nan", True, _CPU), (9999, "none", False, _CPU)),
        _starts("late again", (0, "stall", True, _CPU), (24, "hang", True, _CPU), (9999, "none", False, _CPU)),
        _starts("wrong later", (0, "stall", True, _CPU), (24, "nan", True, _CPU), (9999, "none", False, _CPU)),
        _starts(
            "right in between", (0, "hang", True, _CPU), (24, "none", True, _NPU), (25, "hang", True, _CPU),
            (48, "none", False, _CPU), (49, "none", True, _NPU),
        ),
        _starts("a clock that was set back", (99, "stall", True, _CPU), (98, "none", True, _NPU)),
    ]  # fmt: skip


def _starts(what: str, *starts: tuple[int, str, bool, str]) -> dict[str, Any]:
    names = ("hour", "npu", "is_tried", "takes")
    return {"what": what, "starts": [dict(zip(names, start, strict=True)) for start in starts]}


def list_ladders(toy: Any) -> list[dict[str, Any]]:
    """The cases; `toy` gives a generator and its manifest's document: with a precision and gate, and other changes."""

    def one(what: str, units: Mapping[str, str], takes: str | None, prefix: int = 0, **changes: Any) -> dict[str, Any]:
        generator, data = toy(**changes)
        return ladder(what, generator, data, units, takes, prefix)

    half = {"precision": "fp16", "threshold_db": 35}
    return [
        one("the NPU is right", {_NPU: "none", _GPU: "nan", _CPU: "nan"}, _NPU, **half),
        one("NaN, then a mirrored trajectory", {_NPU: "nan", _GPU: "mirrored", _CPU: "none"}, _CPU, **half),
        one("zeros, then a mirrored picture", {_NPU: "zeros", _GPU: "picture", _CPU: "none"}, _CPU, **half),
        one("a stall, then a crash at load", {_NPU: "stall", _GPU: "load", _CPU: "none"}, _CPU, **half),
        one("a crash in a step", {_NPU: "step", _CPU: "none"}, _CPU, **half),
        one("rounded: enough for fp16", {_NPU: "rounded", _CPU: "none"}, _NPU, **half),
        one("rounded: too little for fp32", {_GPU: "rounded", _CPU: "none"}, _CPU, precision="fp32", threshold_db=60),
        one("nothing is right", {_GPU: "zeros", _CPU: "nan"}, None, **half),
        one("guidance in two steps", {_NPU: "zeros", _CPU: "none"}, _CPU, guided_steps=[1, 2], **half),
        one("a base of two packs", {_NPU: "mirrored", _CPU: "none"}, _CPU, prefix=2, is_base=True, **half),
    ]
