"""A bundle that is replaced while it is used: what was opened goes on as it was, and two are never mixed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kind_bench.measure import cases
from kind_bench.measure.gathering import Gathering
from kind_bench.measure.processes import run_worker
from kind_bench.measure.timing import Counts
from kind_core.errors import BundleError
from kind_core.files.staging import staged
from kind_runtimes.bundle import BUNDLE, open_bundle
from kind_runtimes.engines.runtime import EngineOptions
from kind_runtimes.generator import open_generator
from small_bundles import SUFFIXES, write_manifest


def replace_bundle(path: Path) -> None:
    """By one that draws nothing, as an export with --force does it."""
    with staged(path, BUNDLE, force=True) as new:
        shutil.copytree(path, new)
        for file in new.rglob("*"):
            if file.is_file() and file.suffix in (".onnx", ".pte", ".bin"):
                file.write_bytes(b"other")
        write_manifest(new, SUFFIXES, name="other")


@pytest.mark.parametrize("runtime", SUFFIXES)
def test_what_was_opened_draws_as_before(copy_bundle: Callable[[], Path], runtime: str) -> None:
    path = copy_bundle()
    generator = open_generator(path, open_bundle(path).manifest, runtime)
    before = generator.picture(0, seed=7)
    replace_bundle(path)
    assert np.array_equal(generator.picture(0, seed=7), before)


def test_programs_of_one_and_manifest_of_another_are_never_mixed(copy_bundle: Callable[[], Path]) -> None:
    path = copy_bundle()
    manifest = open_bundle(path).manifest
    with staged(path, BUNDLE, force=True) as new:
        shutil.copytree(path, new)
        write_manifest(new, SUFFIXES, name="other")
    with pytest.raises(BundleError, match="was replaced while it was opened") as caught:
        open_generator(path, manifest, "onnx")
    assert caught.value.hint == "run the command again"


def test_a_process_that_measures_looks_whether_it_is_still_the_same(copy_bundle: Callable[[], Path]) -> None:
    path = copy_bundle()
    case = Gathering(runtime="onnx", options=EngineOptions(), counts=Counts(), manifest_sha256="0" * 64)
    request = cases.BenchRequest(bundle=path, runtimes=("onnx",))
    with pytest.raises(BundleError, match="was replaced while it was measured"):
        list(run_worker(case, cases.describe_job(request, case, case.counts)))
