"""What torch does anew for every pass of a lowering, done once: the same files, sooner.

The history of a node is copied whole each time that a pass makes a node of it (torch.fx), and the operators of C++ are
walked for each of forty namespaces (torch.export). Neither changes while a program is lowered: nobody writes to a
history. Code of graphs is not compiled where nothing runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch._export.utils as export_utils
from torch.fx import GraphModule
from torch.fx.graph import _PyTreeCodeGen
from torch.fx.traceback import NodeSource

_compile = GraphModule.recompile
_text = GraphModule.__str__


@contextmanager
def done_once() -> Iterator[None]:
    """Lower programs within this; torch is as it was afterwards."""
    with (
        replaced(NodeSource, "__deepcopy__", lambda source, memo: source),
        replaced(export_utils, "_materialize_cpp_cia_ops", cache(export_utils._materialize_cpp_cia_ops)),
        compiled_later(),
    ):
        yield


@contextmanager
def replaced(owner: Any, name: str, stand_in: object) -> Iterator[None]:
    """`stand_in` as attribute `name` of a class or module."""
    before = vars(owner).get(name)
    setattr(owner, name, stand_in)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


@contextmanager
def compiled_later() -> Iterator[None]:
    """Change graphs within this, but pickle none: what is then not compiled yet is so when it is called.

    torch writes and compiles the Python code of a graph anew at each change, hundreds of times a program, of which
    hardly any is ever run or read.
    """
    with (
        replaced(GraphModule, "recompile", _recompile_later),
        replaced(GraphModule, "code", property(_read_code)),
        replaced(GraphModule, "__str__", _read_text),
    ):
        yield


class _Forward:
    """`forward` of a graph module, made when it is called or its signature is asked for."""

    def __init__(self, module: GraphModule) -> None:
        self.module = module

    def __get__(self, module: GraphModule | None, owner: type[GraphModule]) -> Callable[..., Any]:
        _compile(self.module)  # puts another `forward` in this one's place
        return owner.forward if module is None else module.forward


def _recompile_later(module: GraphModule) -> None:
    codegen = module.graph._codegen
    if isinstance(codegen, _PyTreeCodeGen):
        module._in_spec, module._out_spec = codegen.pytree_info.in_spec, codegen.pytree_info.out_spec
    forward: Any = _Forward(module)
    type(module).forward = forward  # each graph module is of a class of its own
    for child in module.children():
        if isinstance(child, GraphModule):
            child.recompile()


def _compile_if_stale(module: GraphModule) -> None:
    if isinstance(vars(type(module)).get("forward"), _Forward):
        _compile(module)


def _read_code(module: GraphModule) -> str:
    _compile_if_stale(module)
    return str(module._code)


def _read_text(module: GraphModule) -> str:
    _compile_if_stale(module)
    return _text(module)
