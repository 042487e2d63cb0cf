"""The whole of what an app does, without this project's packages: numpy, onnxruntime and Pillow.

python samples/onnx_loop.py panda.kind panda.png [class_index] [seed]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def start_noise(seed: int, count: int) -> np.ndarray:
    """Philox4x32-10 words, two normals from each pair by Box-Muller; test vectors for a port are in kind_core/data."""
    blocks = -(-count // 4)
    a, b, c, d = np.arange(blocks, dtype=np.uint64), *(np.zeros(blocks, np.uint64) for _ in range(3))
    key0, key1, mask, half = seed & 0xFFFFFFFF, seed >> 32, np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        left, right = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a, b = (right >> half) ^ b ^ np.uint64(key0), right & mask
        c, d = (left >> half) ^ d ^ np.uint64(key1), left & mask
        key0, key1 = (key0 + 0x9E3779B9) & 0xFFFFFFFF, (key1 + 0xBB67AE85) & 0xFFFFFFFF
    words = np.stack([a, b, c, d], axis=1).reshape(-1, 2).astype(np.float64)
    r, angle = np.sqrt(-2 * np.log((words[:, 0] + 1) / 2**32)), 2 * np.pi * words[:, 1] / 2**32
    return np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1).reshape(-1)[:count].astype(np.float32)


def generate(bundle: Path, class_index: int, seed: int) -> Image.Image:
    """One picture from the ONNX programs of a bundle."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    programs = manifest["targets"]["onnx"]["programs"]
    step, decode = (onnxruntime.InferenceSession(bundle / programs[name]["file"]) for name in ("step", "decode"))
    shape = manifest["latents_shape"]
    state = {
        "latents": start_noise(seed, int(np.prod(shape))).reshape(shape) * np.float32(manifest["initial_noise_scale"])
    }
    inputs = [spec["name"] for spec in programs["step"]["inputs"]]
    if "history" in inputs:
        state["history"] = np.zeros(shape, np.float32)
    chosen = {"class_index": np.array([class_index], np.int32)}
    if "guidance" in inputs:  # a model that draws in few steps has it built in
        chosen["guidance"] = np.array([manifest["guidance_scale"]], np.float32)
    for index in range(manifest["steps"]):
        outputs = step.run(None, {**state, **chosen, "step_index": np.array([index], np.int32)})
        state = dict(zip(state, outputs, strict=True))  # outputs come in the order of the state
    (image,) = decode.run(None, {"latents": state["latents"]})
    return Image.fromarray(np.rint(image[0].transpose(1, 2, 0) * 255).astype(np.uint8))


def main() -> None:
    bundle, output, *rest = sys.argv[1:]
    class_index, seed = [*map(int, rest), *(0, 0)[len(rest) :]]
    generate(Path(bundle), class_index, seed).save(output)


if __name__ == "__main__":
    main()
