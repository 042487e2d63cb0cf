"""Processes that train, forked from one that has imported what training does: torch takes seconds each time."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext


def forking() -> ForkServerContext:
    """The context whose processes begin with the imports done."""
    context = multiprocessing.get_context("forkserver")
    # the optimiser's first step imports torch._dynamo
    context.set_forkserver_preload(["torch._dynamo", "kind_train.run.trainer", "kind_train.fit", "tiny_training"])
    return context
