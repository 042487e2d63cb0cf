"""Two graphs as one: each step runs its own branch, and what both hold is stored once."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from kind_export.targets.onnx.branches import merge_branches

_SHARED = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)


def _make(factor: float) -> onnx.ModelProto:
    """y = (x @ shared) * factor, with names that both graphs use for different things."""
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["inner"], "product"),
        helper.make_node("Mul", ["inner", "factor"], ["y"], "scale"),
    ]
    values = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64]),
        helper.make_tensor_value_info("step_index", TensorProto.INT32, [1]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64]),
    ]
    weights = [numpy_helper.from_array(_SHARED, "weight"), numpy_helper.from_array(np.float32(factor), "factor")]
    graph = helper.make_graph(nodes, "graph", values[:2], values[2:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture(scope="module")
def merged() -> onnx.ModelProto:
    model = merge_branches(_make(1.0), _make(10.0), [False, True, True, False])
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.mark.parametrize(("step", "factor"), [(0, 10), (1, 1), (2, 1), (3, 10)])
def test_each_step_runs_its_branch(merged: onnx.ModelProto, step: int, factor: int) -> None:
    session = onnxruntime.InferenceSession(merged.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((1, 64)).astype(np.float32)
    (y,) = session.run(["y"], {"x": x, "step_index": np.array([step], np.int32)})
    np.testing.assert_allclose(y, x @ _SHARED * factor, rtol=1e-4, atol=1e-4)


def test_equal_weights_are_stored_once(merged: onnx.ModelProto) -> None:
    names = sorted(tensor.name for tensor in merged.graph.initializer)
    assert names == ["factor", "is_guided", "otherwise/factor", "weight"]


def test_same_bytes_twice(merged: onnx.ModelProto) -> None:
    again = merge_branches(_make(1.0), _make(10.0), [False, True, True, False])
    assert again.SerializeToString(deterministic=True) == merged.SerializeToString(deterministic=True)
