"""What torch does once for a lowering and not again and again changes no byte of a file, and torch stays as it was."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch._export.utils as export_utils
from torch.fx import Graph, GraphModule, symbolic_trace
from torch.fx.traceback import NodeSource
from torch.onnx._internal.exporter._registration import ONNXRegistry

from kind_export.targets.done_once import compiled_later
from kind_export.targets.target import Lowering, TargetOptions, load_target
from kind_runtimes.quiet import import_coremltools
from small_bundles import PRECISIONS, SmallDecode, program_specs


@pytest.mark.parametrize("target", ["onnx", "executorch", "coreml"])
def test_files_are_the_same(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, spec = load_target(target), program_specs(target)["decode"]
    decode = SmallDecode(255.0 if module.ROW.gives_pictures else 1.0).eval()
    lowering = Lowering(
        name=spec.name, module=decode, example=(torch.zeros(spec.inputs[0].shape),), inputs=spec.inputs,
        outputs=spec.outputs,
    )  # fmt: skip
    options = TargetOptions(precision=PRECISIONS[target])  # type: ignore[arg-type]
    (tmp_path / "once").mkdir()
    (tmp_path / "again").mkdir()
    before = _of_torch()
    module.lower(lowering, tmp_path / "once" / f"decode{module.ROW.suffix}", options)
    assert _of_torch() == before
    for name in ("done_once", "kept_registry", "validated_at_the_end"):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, nullcontext)
    module.lower(lowering, tmp_path / "again" / f"decode{module.ROW.suffix}", options)
    assert _read(tmp_path / "once") == _read(tmp_path / "again")


def _of_torch() -> tuple[object, ...]:
    return (
        vars(NodeSource).get("__deepcopy__"), export_utils._materialize_cpp_cia_ops,
        vars(ONNXRegistry)["from_torchlib"], *(vars(GraphModule)[name] for name in ("recompile", "code", "__str__")),
        import_coremltools().converters.mil.mil.Program.validate,
    )  # fmt: skip


def _multiply_by(module: GraphModule, factor: int) -> None:
    product = next(node for node in module.graph.nodes if node.op == "call_function")
    product.args = (product.args[0], factor)


def test_a_changed_graph_is_compiled_when_it_is_called_or_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Twice(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    one = torch.ones(1)
    inner, outer = symbolic_trace(Twice()), symbolic_trace(Twice())
    outer.add_submodule("inner", inner)
    written, write = [], Graph.python_code
    monkeypatch.setattr(Graph, "python_code", lambda graph, *a, **k: written.append(graph) or write(graph, *a, **k))
    with compiled_later():
        for factor in (2, 3):
            _multiply_by(inner, factor)
            inner.recompile()
        assert not written
        assert inner(one).item() == 3
        assert len(written) == 1
        _multiply_by(inner, 5)
        inner.recompile()
        assert "* 5" in inner.code
        _multiply_by(inner, 7)
        inner.recompile()
        assert "* 7" in str(inner)
        _multiply_by(inner, 11)
        outer.recompile()  # and what it holds
    assert inner(one).item() == 11


def test_a_graph_compiled_later_is_called_as_any_other() -> None:
    class Twice(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    with compiled_later():
        module = symbolic_trace(Twice())
        assert list(inspect.signature(module.forward).parameters) == ["x"]  # torch.export names inputs by it
        module.recompile()
        assert type(module).forward(module, torch.ones(1)).item() == 2
        module.recompile()
        called: list[torch.nn.Module] = []
        module.register_forward_pre_hook(lambda module, inputs: called.append(module))
        module.recompile()
        assert module(torch.ones(1)).item() == 2
    assert called == [module]


def _read(folder: Path) -> dict[str, bytes]:
    return {str(x.relative_to(folder)): x.read_bytes() for x in folder.rglob("*") if x.is_file()}
