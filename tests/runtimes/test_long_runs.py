"""A part of `tests/long_runs.py`: what it measures levels off, and what grows is seen."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kind_runtimes.bundle import Bundle
from long_runs import MAX_GROWTH_BYTES, Growth, Sample, draw, serve

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the files and the memory of a process")


def test_pictures_leave_nothing_behind(small_bundle: Bundle, tmp_path: Path) -> None:
    growth = draw(small_bundle.path, "onnx", 60, tmp_path / "p.png")
    assert growth.levels_off, growth
    assert (tmp_path / "p.png").exists()


def test_requests_leave_nothing_behind(small_bundle: Bundle) -> None:
    growth = serve(small_bundle.path, 160)
    assert growth.levels_off, growth
    assert growth.end.threads <= 3, growth  # of connections that are over there are none


def test_what_grows_is_seen() -> None:
    sample = Sample(size_bytes=100, files=5, threads=1)
    level = Growth(name="a run", seconds=1.0, quarter=sample, middle=sample, end=sample)
    assert level.levels_off
    assert not replace(level, end=replace(sample, size_bytes=101 + MAX_GROWTH_BYTES)).levels_off
    assert not replace(level, end=replace(sample, files=8)).levels_off
