"""Python code of torch's graphs, made when it is run or read: of the graphs of a lowering, hardly any ever is.

torch writes and compiles it anew at each change of a graph, hundreds of times a program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.fx import GraphModule
from torch.fx.graph import _PyTreeCodeGen

from kind_export.targets.replacing import replaced

_compile = GraphModule.recompile
_text = GraphModule.__str__


@contextmanager
def compiled_later() -> Iterator[None]:
    """Change graphs within this, but pickle none: what is then not compiled yet is so when it is called."""
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
