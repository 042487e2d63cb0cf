"""Fixtures that every package's tests share; what they are made of is in `tiny`."""

from __future__ import annotations

import gc
import logging
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kind_core.checkpoint import save_checkpoint
from kind_core.config import DiTConfig, ModelConfig
from kind_core.dit import KindDiT
from made_once import made_once
from tiny import tiny_model, tiny_model_config

if TYPE_CHECKING:
    from kind_runtimes.bundle import Bundle


gc.disable()  # imports and collected tests stay: nothing of them is garbage


_MANY_MODULES = 200
_num_seen = 0


def pytest_collection_finish() -> None:
    """What was imported lives as long as the tests: looking through it again and again was a tenth of every export."""
    _leave_alone()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """So does what a test imported: coremltools collects after each conversion, a fifth of its time."""
    if len(sys.modules) > _num_seen + _MANY_MODULES:
        _leave_alone()


def _leave_alone() -> None:
    """Nothing that is alive now is looked through again."""
    global _num_seen
    gc.collect()
    gc.freeze()
    _num_seen = len(sys.modules)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that workers that take a file at a time end together."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: not slow[item.path])


@pytest.fixture(autouse=True, scope="session")
def _sigint() -> None:
    """Ctrl-C means what it does in a terminal, also where a shell started the tests in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _quiet_trace() -> None:
    """torch's tracer logs thousands of debug records, which pytest would collect."""
    logging.getLogger("torch.__trace").propagate = False


@pytest.fixture
def model() -> KindDiT:
    """A randomised tiny model, new for each test."""
    return tiny_model()


@pytest.fixture
def dit_config(model: KindDiT) -> DiTConfig:
    return model.config


@pytest.fixture
def model_config(dit_config: DiTConfig) -> ModelConfig:
    return tiny_model_config(dit_config)


@pytest.fixture
def checkpoint_path(tmp_path: Path, model: KindDiT, model_config: ModelConfig) -> Path:
    """The folder of `model` saved as a checkpoint."""
    path = tmp_path / "checkpoint"
    save_checkpoint(path, model_config, model)
    return path


@pytest.fixture
def placeholders(tmp_path: Path) -> Path:
    """A bundle of files that cannot be run, new for each test."""
    from small_bundles import write_placeholders

    folder = tmp_path / "placeholders.kind"
    write_placeholders(folder)
    return folder


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of small programs for all three runtimes; not to be changed."""
    from kind_runtimes.bundle import open_bundle

    return open_bundle(made_once(tmp_path_factory, "small-bundle", _lower_small) / "small.kind")


def _lower_small(folder: Path) -> None:
    from small_bundles import SUFFIXES, lower_programs

    lower_programs(folder / "small.kind", SUFFIXES)


@pytest.fixture
def copy_bundle(small_bundle: Bundle, tmp_path: Path) -> Callable[[], Path]:
    """Makes a copy of `small_bundle` that may be changed."""

    def copy() -> Path:
        return Path(shutil.copytree(small_bundle.path, tmp_path / "copy.kind"))

    return copy
