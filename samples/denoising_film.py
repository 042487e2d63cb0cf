"""A picture coming out of the noise, as an animated GIF: a frame a step.

python samples/denoising_film.py panda.kind panda.gif [seed]
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from kind_core.noise import start_noise
from kind_runtimes import open_bundle, open_generator

_MS_A_FRAME, _MS_AT_THE_END, _ZOOM = 120, 1500, 8


def main() -> None:
    bundle_path, output, *rest = sys.argv[1:]
    bundle = open_bundle(Path(bundle_path))
    generator = open_generator(bundle.path, bundle.manifest, "onnx")
    noise = start_noise(int(rest[0]) if rest else 0, bundle.manifest.latents_shape)
    frames = [
        Image.fromarray(generator.decode_picture(latents)) for latents in generator.trajectory(noise, class_index=0)
    ]
    first, *others = [
        frame.resize((frame.width * _ZOOM, frame.height * _ZOOM), Image.Resampling.NEAREST) for frame in frames
    ]
    durations = [_MS_A_FRAME] * len(others) + [_MS_AT_THE_END]
    first.save(output, save_all=True, append_images=others, duration=durations, loop=0)


if __name__ == "__main__":
    main()
