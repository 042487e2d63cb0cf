"""Memory of `kind-train statistics`: the peak of a process that sees a few synthetic photos, and of one that sees many.

python tests/benchmarks/statistics_memory.py --photos 2000,20000,200000
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

_ROWS = 5000  # photos in a file

_CHILD = """
import resource, sys
from pathlib import Path
from kind_train.data.photo_set import stream_photos
from kind_train.evaluate.statistics import collect_statistics

class Pixels:
    name, sha256 = "pixels", "0" * 64
    def observe(self, images):
        return {"features": images.reshape(len(images), -1)[:, :512].astype("float32")}

found = collect_statistics(stream_photos(sys.argv[1], 16), [Pixels()], keep=1000)
print(sum(found.counts), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def write_photos(folder: Path, count: int) -> None:
    """Parquet files of noise, 16 x 16, of ten classes."""
    rng = np.random.default_rng(0)
    for first in range(0, count, _ROWS):
        rows = min(_ROWS, count - first)
        images = []
        for _ in range(rows):
            stream = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(stream, "PNG", compress_level=0)
            images.append({"bytes": stream.getvalue(), "path": None})
        table = pyarrow.table({"image": images, "label": [(first + i) % 10 for i in range(rows)]})
        pyarrow.parquet.write_table(table, folder / f"part-{first // _ROWS:05d}.parquet", row_group_size=500)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", default="2000,20000,200000")
    for count in map(int, parser.parse_args().photos.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            write_photos(Path(folder), count)
            start_s = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", _CHILD, folder], capture_output=True, text=True, check=True)
            seen, peak_mb = done.stdout.split()
            decoded_mb = count * 16 * 16 * 3 / 1e6
            print(
                f"{int(seen):>7} photos, {decoded_mb:6.0f} MB decoded: peak {peak_mb} MB, "
                f"{time.perf_counter() - start_s:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
