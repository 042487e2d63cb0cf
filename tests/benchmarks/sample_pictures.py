"""`docs/samples.png`: pictures of every class of a bundle, drawn by its exported programs, one row a class.

    kind-export --classes "$(kind-export classes --json | jq -r '[.[].id] | join(",")')" --target onnx -o all.kind
    python tests/benchmarks/sample_pictures.py all.kind docs/samples.png

The seeds are 0, 1, 2 ...: nothing is chosen.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from kind_core.pictures import make_grid, write_picture
from kind_runtimes import open_bundle, open_generator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--columns", type=int, default=12)
    parser.add_argument("--scale", type=int, default=2, help="pixels of the grid for one of a picture")
    arguments = parser.parse_args()
    bundle = open_bundle(arguments.bundle)
    runtime = next(iter(bundle.manifest.targets))
    generator = open_generator(bundle.path, bundle.manifest, runtime)
    classes, seeds = range(len(bundle.manifest.classes)), range(arguments.columns)
    pictures = [generator.picture(index, seed) for index in classes for seed in seeds]
    grid = make_grid(pictures, arguments.columns)
    size = (grid.width * arguments.scale, grid.height * arguments.scale)
    write_picture(arguments.output, grid.resize(size, Image.Resampling.NEAREST), force=True)


if __name__ == "__main__":
    main()
