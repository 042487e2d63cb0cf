"""Whether memory, file descriptors and threads level off: `python tests/long_runs.py`, tests/ on PYTHONPATH.

500 pictures by kind-run in each runtime, 2,000 requests from eight threads to kind-run serve, 5,000 pictures in Node
(after `npm ci && npm run build`). Prints the table of docs/numbers.md; exit code 1 where something goes on growing.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
_RUN = "from kind_runtimes.cli import main; main()"
_PAGE = os.sysconf("SC_PAGE_SIZE")
_THREADS = 8
# Between the middle and the end of a run: what allocators keep, and no more.
MAX_GROWTH_BYTES = 24 << 20
MAX_GROWTH_FILES = 2
_DRAW = """
import sys
from pathlib import Path
from kind_runtimes.draw import RunRequest, run_bundle
bundle, runtime, count, output = sys.argv[1:]
given = dict(bundle=Path(bundle), class_name="giant panda", runtime=runtime, output=Path(output))
request = RunRequest(**given, count=int(count))
marks = [int(count) * part // 4 for part in (1, 2, 4)]
def tell(progress):
    picture = progress.done * int(count) // progress.total
    while marks and picture >= marks[0]:
        marks.pop(0)
        print("mark", flush=True)
        sys.stdin.readline()
run_bundle(request, tell)
"""
_NODE = """
const { openGenerator } = await import(process.argv[1]);
const { readSync } = await import("node:fs");
const generator = await openGenerator(process.argv[2]);
const count = Number(process.argv[3]);
for (let seed = 0; seed < count; seed++) {
  await generator.picture({ class: seed % 2, seed });
  if ([0.25, 0.5, 1].some((part) => seed + 1 === Math.floor(count * part))) {
    console.log("mark");
    readSync(0, new Uint8Array(1));
  }
}
"""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Resident bytes, open files and threads of a process."""

    size_bytes: int
    files: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class Growth:
    """A quarter into a run, at its middle and at its end."""

    name: str
    seconds: float
    quarter: Sample
    middle: Sample
    end: Sample

    @property
    def levels_off(self) -> bool:
        grown = self.end.size_bytes - self.middle.size_bytes
        return grown <= MAX_GROWTH_BYTES and self.end.files <= self.middle.files + MAX_GROWTH_FILES

    def to_row(self) -> str:
        """A line of a Markdown table."""
        parts = (self.quarter, self.middle, self.end)
        sizes, files = (" / ".join(f"{one:.0f}" for one in column) for column in (
            [part.size_bytes / 1e6 for part in parts], [part.files for part in parts],
        ))  # fmt: skip
        return f"| {self.name} | {self.seconds:.0f} s | {sizes} | {files} | {'yes' if self.levels_off else 'NO'} |"


def read_sample(pid: int) -> Sample:
    """Of a process that lives; raises OSError where it has gone."""
    folder = Path("/proc") / str(pid)
    size_bytes = int((folder / "statm").read_text().split()[1]) * _PAGE
    if size_bytes == 0:
        raise OSError("it has ended")
    return Sample(size_bytes=size_bytes, files=len(os.listdir(folder / "fd")), threads=len(os.listdir(folder / "task")))


def watch_run(name: str, command: Sequence[object]) -> Growth:
    """A program that says where it stands, a quarter of its way, in the middle and at the end, and waits to be seen."""
    start = time.monotonic()
    given = list(map(str, command))
    with subprocess.Popen(given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        samples = []
        for _ in range(3):
            assert process.stdout.readline() == "mark\n", f"{name} ended after {len(samples)} marks"
            samples.append(read_sample(process.pid))
            process.stdin.write("\n")
    assert process.returncode == 0
    quarter, middle, end = samples
    return Growth(name=name, seconds=time.monotonic() - start, quarter=quarter, middle=middle, end=end)


def draw(bundle: Path, runtime: str, count: int, output: Path) -> Growth:
    """What `kind-run --count` does."""
    command = (sys.executable, "-c", _DRAW, bundle, runtime, count, output)
    return watch_run(f"kind-run --count {count}, {runtime}", command)


def draw_in_node(bundle: Path, count: int) -> Growth:
    """`generator.picture` in Node, which holds files to their sizes too."""
    data = json.loads((bundle / "manifest.json").read_text())
    for name, entry in data["files"].items():
        entry["size_bytes"] = (bundle / name).stat().st_size
    (bundle / "manifest.json").write_text(json.dumps(data))
    module = ROOT / "runtimes" / "js" / "dist" / "node.js"
    return watch_run(f"{count:,} pictures in Node", ("node", "--input-type=module", "-e", _NODE, module, bundle, count))


def serve(bundle: Path, requests: int) -> Growth:
    """`kind-run serve`, asked by several threads: whole files, parts, heads, packed ones, what is not there."""
    command = [sys.executable, "-c", _RUN, "serve", str(bundle), "--port", "0"]
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            port = next(int(found[1]) for line in process.stdout if (found := re.search(r":(\d+)/", line)))
            samples = []
            with ThreadPoolExecutor(_THREADS) as pool:
                for i in range(0, requests, _THREADS):
                    statuses = pool.map(partial(_ask, port), range(i, i + _THREADS))
                    assert set(statuses) <= {200, 206, 404}
                    samples.append(read_sample(process.pid))
            time.sleep(1)
            samples.append(read_sample(process.pid))
        finally:
            process.terminate()
    name, seconds = f"{requests:,} requests to kind-run serve, {_THREADS} threads", time.monotonic() - start
    quarter, middle, end = (samples[len(samples) * part // 4 - 1] for part in (1, 2, 4))
    return Growth(name=name, seconds=seconds, quarter=quarter, middle=middle, end=end)


def _ask(port: int, number: int) -> int:
    path, method, headers = (
        ("/bundle/manifest.json", "GET", {}), ("/bundle/onnx/step.onnx", "GET", {"Range": "bytes=10-99"}),
        ("/", "GET", {"Accept-Encoding": "gzip"}), ("/bundle/onnx/decode.onnx", "HEAD", {}), ("/none", "GET", {}),
        ("/sw.js", "GET", {}),
    )[number % 6]  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


def _list_runs(folder: Path, count: int, requests: int, pictures: int) -> Iterator[Callable[[], Growth]]:
    bundle = folder / "small.kind"
    for runtime in ("onnx", "executorch", "coreml"):
        yield partial(draw, bundle, runtime, count, folder / f"{runtime}.png")
    yield partial(serve, bundle, requests)
    if (ROOT / "runtimes" / "js" / "dist").is_dir() and shutil.which("node"):
        yield partial(draw_in_node, bundle, pictures)


def main() -> int:
    """Run all, print the table, and return the exit code."""
    from small_bundles import SUFFIXES, lower_programs

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--pictures", type=int, default=5000)
    given = parser.parse_args()
    is_level = True
    print("| run | time | MB at a quarter / middle / end | open files | levels off |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        lower_programs(Path(folder) / "small.kind", SUFFIXES)
        for run in _list_runs(Path(folder), given.count, given.requests, given.pictures):
            growth = run()
            is_level &= growth.levels_off
            print(growth.to_row(), flush=True)
    return int(not is_level)


if __name__ == "__main__":
    sys.exit(main())
