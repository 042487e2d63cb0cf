"""One case in a fresh process: `python -m kind_bench.measure.worker`, started by `processes`.

It reads its job from the first line of stdin, which stays open as long as its parent lives, and writes messages to
stdout, JSON a line each:
    {"opened": {"engine", "first_ms", "file_cache", "first_picture_ms"}}
    {"samples": [ms, ...], "part": "step"}            many
    {"finished": {"memory": {...}, "again_ms"}}       memory as a results file has it
    {"profile": {...}}                                instead of the others, where the job asks for it
    {"error": {"type", "message", "hint"}}            the last one, when it fails
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

from kind_bench.measure.gathering import Message
from kind_bench.measure.memory import begin_peak, drop_files, file_cache, read_peak
from kind_bench.measure.timing import Counts, measure_loop
from kind_core.errors import BundleError, KindError
from kind_core.files.hashing import hash_file
from kind_runtimes.bundle import MANIFEST_NAME, list_program_files, read_manifest
from kind_runtimes.engines.runtime import EngineOptions, load_runtime
from kind_runtimes.generator import Generator, open_generator
from kind_runtimes.golden import check_golden
from kind_runtimes.manifest import Manifest

Send = Callable[[Message], None]


def main() -> None:
    """Do the job on stdin."""
    job = json.loads(sys.stdin.readline())
    Thread(target=_end_with_parent, daemon=True).start()
    # native code may write to stdout: it goes to stderr, and the messages have a stream of their own
    messages = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def send(message: Message) -> None:
        messages.write(json.dumps(message) + "\n")

    try:
        (_profile if job["profile"] else _measure)(job, send)
    except KindError as error:
        send({"error": {"type": type(error).__name__, "message": error.message, "hint": error.hint}})
        sys.exit(1)


def _end_with_parent() -> None:
    """Nobody would read what is measured after the process that asked for it has died, however it died."""
    sys.stdin.read()
    os._exit(1)


def _measure(job: Message, send: Send) -> None:
    folder, runtime, options = Path(job["bundle"]), job["runtime"], EngineOptions(**job["options"])
    manifest = _read_manifest(folder, job)
    load_runtime(runtime)
    files = [folder / name for name in list_program_files(manifest, runtime)]
    if job["cold"]:
        drop_files(files)
    cache = file_cache(files)
    baseline = begin_peak()
    generator, first_ms = _open(folder, manifest, runtime, options)
    opened = {"engine": generator.step.engine, "first_ms": first_ms, "file_cache": cache}
    send({"opened": opened | {"first_picture_ms": _draw_first(generator, first_ms)}})
    measure_loop(generator, Counts(**job["counts"]), lambda part, ms: send({"samples": ms, "part": part}))
    peak = read_peak()
    check_golden(folder, manifest, generator, runtime, None if manifest.pack_base is not None else 0)
    del generator
    gc.collect()
    _, again_ms = _open(folder, manifest, runtime, options)
    held = {"peak_memory_bytes": peak.bytes, "baseline_memory_bytes": baseline.bytes, "memory_measure": peak.measure}
    send({"finished": {"memory": held, "again_ms": again_ms}})


def _draw_first(generator: Generator, load_ms: float) -> float | None:
    """Milliseconds from opening to the first picture, before anything is warm; None where there is no decoder."""
    if generator.decode is None:
        return None
    start = time.perf_counter()
    generator.picture(0, 0)
    return load_ms + (time.perf_counter() - start) * 1e3


def _profile(job: Message, send: Send) -> None:
    from kind_bench.measure.profiles import profile_step

    folder = Path(job["bundle"])
    manifest = _read_manifest(folder, job)
    generator = open_generator(folder, manifest, job["runtime"], EngineOptions(**job["options"]), is_expendable=True)
    send({"profile": profile_step(folder, generator, job["runtime"], EngineOptions(**job["options"]))})


def _read_manifest(folder: Path, job: Message) -> Manifest:
    """That of the bundle whose files the command has checked; raises BundleError where it is another one by now."""
    expected = job.get("manifest_sha256")
    if expected and hash_file(folder / MANIFEST_NAME) != expected:
        raise BundleError(f"{folder} was replaced while it was measured", "measure it again")
    return read_manifest(folder, run_code=job.get("run_code", False))


def _open(folder: Path, manifest: Manifest, runtime: str, options: EngineOptions) -> tuple[Generator, float]:
    start = time.perf_counter()
    generator = open_generator(folder, manifest, runtime, options, is_expendable=True)
    return generator, (time.perf_counter() - start) * 1e3


if __name__ == "__main__":
    main()
