"""What torch does anew for every pass of a lowering, done once: the same files, sooner.

The history of a node is copied whole each time that a pass makes a node of it (torch.fx), and the operators of C++ are
walked for each of forty namespaces (torch.export). Neither changes while a program is lowered: nobody writes to a
history. Code of graphs is not compiled where nothing runs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch._export.utils as export_utils
from torch.fx.traceback import NodeSource

from kind_export.targets.compiled_later import compiled_later
from kind_export.targets.replacing import replaced


@contextmanager
def done_once() -> Iterator[None]:
    """Lower programs within this; torch is as it was afterwards."""
    with (
        replaced(NodeSource, "__deepcopy__", lambda source, memo: source),
        replaced(export_utils, "_materialize_cpp_cia_ops", cache(export_utils._materialize_cpp_cia_ops)),
        compiled_later(),
    ):
        yield
