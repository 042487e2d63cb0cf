"""Bundles that the tests of the runtimes share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_bundles import SUFFIXES, lower_programs, write_placeholders

from kind_runtimes.bundle import Bundle, open_bundle


@pytest.fixture
def placeholders(tmp_path: Path) -> Path:
    """A bundle of files that cannot be run, new for each test."""
    folder = tmp_path / "placeholders.kind"
    write_placeholders(folder)
    return folder


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of small programs for all three runtimes; not to be changed."""
    folder = tmp_path_factory.mktemp("bundles") / "small.kind"
    lower_programs(folder, SUFFIXES)
    return open_bundle(folder)


@pytest.fixture
def copy_bundle(small_bundle: Bundle, tmp_path: Path) -> Callable[[], Path]:
    """Makes a copy of `small_bundle` that may be changed."""

    def copy() -> Path:
        return Path(shutil.copytree(small_bundle.path, tmp_path / "copy.kind"))

    return copy
