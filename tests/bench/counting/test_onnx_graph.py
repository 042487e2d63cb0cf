"""ONNX graphs made by hand, whose figures can be told by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kind_bench.counting import count_program
from kind_bench.counting.onnx_graph import count
from kind_bench.counting.work import ProgramWork
from kind_core.errors import BundleError, TargetError
from kind_runtimes.manifest import ProgramSpec

SPEC = ProgramSpec(name="step", file="step.onnx", inputs=(), outputs=())


def _constant(name: str, *shape: int, dtype: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(shape, dtype), name)


def _count(
    folder: Path, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], shape: tuple[int, ...] = (2, 16, 32)
) -> ProgramWork:
    """The graph from x of `shape` to y."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in (("x", shape), ("y", None)))
    graph = helper.make_graph(nodes, "kind", [x], [y], constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    file = folder / "step.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets), file)
    return count_program(file, SPEC, "onnx")


def test_a_layer_with_its_bias_in_a_second_operator(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    work = _count(tmp_path, nodes, [_constant("w", 32, 64), _constant("b", 64)])
    assert work.flops() == 2 * 2 * 16 * 32 * 64
    assert work.flops("paper") == work.flops() + 2 * 16 * 64
    assert work.weight_bytes == 4 * (32 * 64 + 64)
    assert work.ops[0].activation_bytes == 4 * 2 * 16 * (32 + 64)
    assert {op.backend for op in work.ops} == {"CPU"}


def test_attention_of_onnxruntime(tmp_path: Path) -> None:
    fused = helper.make_node("MultiHeadAttention", ["x", "x", "x"], ["y"], domain="com.microsoft", num_heads=4)
    work = _count(tmp_path, [fused], [])
    assert work.flops() == 2 * 2 * (2 * 16 * 16 * 32)
    assert work.ops[0].op_class == "attention"
    assert work.flops("paper") == 0


def test_integer_products_and_four_bit_weights(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["p"]),
        helper.make_node("Cast", ["p"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "s"], ["h"]),
        helper.make_node(
            "MatMulNBits", ["h", "w4", "s4"], ["y"], domain="com.microsoft", K=64, N=32, bits=4, block_size=32
        ),
    ]
    constants = [
        _constant("w", 32, 64, dtype=np.int8), _constant("w4", 32, 2, 16, dtype=np.uint8), _constant("s4", 64),
    ]  # fmt: skip
    work = _count(tmp_path, nodes, constants)
    by_type = {op.op_type: op for op in work.ops}
    assert work.flops() == 2 * (2 * 2 * 16 * 32 * 64)
    assert by_type["MatMulInteger"].precision == "int8"
    assert by_type["MatMulNBits"].precision == "fp32"
    assert by_type["MatMulNBits"].weight_bytes == 32 * 64 // 2 + 4 * 64
    assert by_type["DynamicQuantizeLinear"].activation_bytes == 2 * 16 * 32 * 5 + 5


def test_what_depends_on_constants_alone_is_no_operator(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["half"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "wide"], ["y"]),
    ]
    work = _count(tmp_path, nodes, [_constant("half", 32, 8, dtype=np.float16)])
    assert [op.op_type for op in work.ops] == ["MatMul"]
    assert work.weight_bytes == work.ops[0].weight_bytes == 2 * 32 * 8


def test_of_two_branches_the_chosen_one_is_counted(tmp_path: Path) -> None:
    def branch(name: str, width: int) -> onnx.GraphProto:
        nodes = [helper.make_node("MatMul", ["x", f"down{width}"], [f"{name}/h"])]
        nodes += [helper.make_node("MatMul", [f"{name}/h", f"up{width}"], [f"{name}/y"])]
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}/y", 1, (2, 16, 32))])

    nodes = [
        helper.make_node("If", ["c"], ["z"], then_branch=branch("then", 8), else_branch=branch("otherwise", 4)),
        helper.make_node("Relu", ["z"], ["y"]),
    ]
    constants = [
        _constant("c", 1, dtype=np.bool_), *(_constant(f"down{n}", 32, n) for n in (4, 8)),
        *(_constant(f"up{n}", n, 32) for n in (4, 8)),
    ]  # fmt: skip
    guided = _count(tmp_path, nodes, constants)
    half = count(tmp_path / "step.onnx", SPEC, is_guided=False)
    assert guided.flops() == 2 * half.flops() == 2 * 2 * 16 * (2 * 32 * 8)
    assert guided.weight_bytes == 2 * half.weight_bytes == 4 * 2 * 32 * 8
    assert guided.ops[-1].op_type == "Relu"


def test_a_file_that_is_no_model_and_an_operator_without_rule(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\xff" * 40)
    with pytest.raises(BundleError, match=r"broken\.onnx cannot be read as an ONNX model"):
        count_program(tmp_path / "broken.onnx", SPEC, "onnx")
    with pytest.raises(TargetError, match="type Einsum, which has no rule"):
        _count(tmp_path, [helper.make_node("Einsum", ["x"], ["y"], equation="abc->acb")], [])
    with pytest.raises(TargetError, match="unknown target 'tflite', expected one of onnx"):
        count_program(tmp_path / "step.tflite", SPEC, "tflite")


def test_a_shape_that_is_not_known_is_an_error(tmp_path: Path) -> None:
    made_up = helper.make_node("MadeUp", ["x"], ["y"], domain="com.microsoft")
    with pytest.raises(BundleError, match="does not say the shape of 'y'"):
        _count(tmp_path, [made_up], [])
