"""Tests of the export run torch on one thread: on tensors this small, more threads only wait for each other."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="package")
def quiet_trace() -> Iterator[None]:
    """torch's tracer logs thousands of debug records, which pytest would collect."""
    logger = logging.getLogger("torch.__trace")
    propagate, logger.propagate = logger.propagate, False
    yield
    logger.propagate = propagate
