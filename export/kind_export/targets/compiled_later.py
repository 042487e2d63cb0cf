"""Python code of torch's graphs, made when it is run or read: of the graphs of a lowering, hardly any ever is.

torch writes and compiles it anew at each change of a graph, hundreds of times a program.
"""

from __future__ import annotations

from collections.abc import Iterator
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


def _recompile_later(module: GraphModule) -> None:
    codegen = module.graph._codegen
    if isinstance(codegen, _PyTreeCodeGen):
        module._in_spec, module._out_spec = codegen.pytree_info.in_spec, codegen.pytree_info.out_spec
    type(module).forward = _run  # each graph module is of a class of its own
    for child in module.children():
        if isinstance(child, GraphModule):
            child.recompile()


def _run(module: GraphModule, *args: Any, **kwargs: Any) -> Any:
    _compile(module)
    return module(*args, **kwargs)  # by the call that comes with the code


def _compile_if_stale(module: GraphModule) -> None:
    if type(module).forward is _run or "_code" not in vars(module):
        _compile(module)


def _read_code(module: GraphModule) -> str:
    _compile_if_stale(module)
    return str(module._code)


def _read_text(module: GraphModule) -> str:
    _compile_if_stale(module)
    return _text(module)
