"""Fashion-MNIST as Parquet for `kind-train`, what the sample `garments` was trained on. Nothing is downloaded:

    apt-get install dataset-fashion-mnist
    python tests/benchmarks/garments_data.py garments-data

The 28 x 28 grey pictures are padded with black to 32 x 32 and written as `train.parquet` (60,000), `val.parquet` (the
even ones of the 10,000 test pictures, to measure with), `judge.parquet` (the odd ones, to train a classifier on) and
`new.parquet` (the first 1,000 training pictures of each of four classes, for a base that has not seen these).
MIT licence; its text is in samples/kind_samples/garments/LICENSE-WEIGHTS.md.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
SOURCE = Path("/usr/share/datasets/fashion-mnist")
NEW, EACH = ("dress", "coat", "sneaker", "bag"), 1_000
_PADDING = ((0, 0), (2, 2), (2, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder of the four files")
    parser.add_argument("--source", type=Path, default=SOURCE, help="folder of the four .gz files")
    arguments = parser.parse_args()
    train, test = (read_part(arguments.source, part) for part in ("train", "t10k"))
    arguments.output.mkdir(parents=True, exist_ok=True)
    parts = {"train": train, "val": [one[::2] for one in test], "judge": [one[1::2] for one in test]}
    images, labels = train
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == NAMES.index(name))[:EACH] for name in NEW]))
    parts["new"] = [images[chosen], labels[chosen]]
    for name, (images, labels) in parts.items():
        write_parquet(arguments.output / f"{name}.parquet", images, labels)
        print(f"{name}.parquet  {len(labels)} pictures")


def read_part(source: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 (n, 32, 32) and labels (n,) of `train` or `t10k`; the format is that of MNIST."""
    with gzip.open(source / f"{part}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(source / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return np.pad(images, _PADDING), labels


def write_parquet(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """A table as the `datasets` library writes it, with the class names in its schema."""
    table = pyarrow.table(
        {"image": [{"bytes": encode(image), "path": None} for image in images], "label": labels.astype(np.int64)}
    )
    info = {"info": {"features": {"label": {"names": NAMES, "_type": "ClassLabel"}}}}
    pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(info)}), path)


def encode(image: np.ndarray) -> bytes:
    """A grey picture as an RGB PNG."""
    stream = io.BytesIO()
    Image.fromarray(image).convert("RGB").save(stream, "PNG")
    return stream.getvalue()


if __name__ == "__main__":
    main()
