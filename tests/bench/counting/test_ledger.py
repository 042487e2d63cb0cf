"""The books that all walkers keep: bytes, classes of products, constants and what is alive."""

from __future__ import annotations

from kind_bench.counting.ledger import Ledger, TensorSize
from kind_bench.counting.work import OpClass, OpWork

KB = TensorSize(shape=(256,), bits=32)  # 1 KiB


def _add(
    ledger: Ledger, op_class: OpClass, reads: list[str], written: str, size: TensorSize = KB, *, is_view: bool = False
) -> None:
    op = OpWork(name=written, op_type=op_class, op_class=op_class, backend="CPU", precision="fp32")
    ledger.add(op, reads, {written: size}, is_view=is_view)


def _ledger(*inputs: str) -> Ledger:
    ledger = Ledger()
    for name in inputs:
        ledger.add_input(name, KB)
    return ledger


def test_a_result_is_alive_until_its_last_reader() -> None:
    ledger = _ledger("x")
    _add(ledger, "elementwise", ["x"], "a")
    _add(ledger, "elementwise", ["a"], "b")  # a and b
    _add(ledger, "elementwise", ["b"], "c")  # b and c; a is gone
    assert ledger.finish("onnx", "step", ["c"]).peak_activation_bytes == 3 * KB.size_bytes  # the input stays


def test_a_long_connection_keeps_its_memory() -> None:
    ledger = _ledger("x")
    for read, written in ("xa", "ab", "bc"):
        _add(ledger, "elementwise", [read], written)
    _add(ledger, "elementwise", ["a", "c"], "y")
    assert ledger.finish("onnx", "step", ["y"]).peak_activation_bytes == 4 * KB.size_bytes  # x, a, then b, c or c, y


def test_a_view_holds_what_it_looks_at_and_moves_nothing() -> None:
    ledger = _ledger("x")
    _add(ledger, "elementwise", ["x"], "a")
    _add(ledger, "layout", ["a"], "flat", is_view=True)
    _add(ledger, "elementwise", ["flat"], "y")
    work = ledger.finish("onnx", "step", ["y"])
    assert [op.bytes_moved for op in work.ops] == [2048, 0, 2048]
    assert work.peak_activation_bytes == 3 * KB.size_bytes


def test_a_look_up_and_a_slice_read_only_what_they_give() -> None:
    ledger = _ledger("index", "row")
    ledger.add_constant("table", TensorSize(shape=(100, 256), bits=16))
    _add(ledger, "lookup", ["table", "index"], "found", TensorSize(shape=(1, 256), bits=16))
    _add(ledger, "layout", ["row"], "part", TensorSize(shape=(64,), bits=32))
    work = ledger.finish("onnx", "step", ["found", "part"])
    assert work.ops[0].weight_bytes == 512
    assert work.ops[1].activation_bytes == 2 * 256
    assert work.weight_bytes == 51200


def test_one_constant_of_two_names_is_stored_once() -> None:
    ledger = _ledger("x")
    for name in ("w", "same"):
        ledger.add_constant(name, KB, identity="blob", stored=300)
    ledger.add_constant("unread", KB)
    ledger.fold("wide", KB, ["w"])
    _add(ledger, "linear", ["x", "wide", "same"], "y")
    work = ledger.finish("onnx", "step", ["y"])
    assert work.weight_bytes == work.ops[0].weight_bytes == 300
    assert work.ops[0].activation_bytes == 2048


def test_weights_that_are_looked_up_or_given_make_linear_products() -> None:
    ledger = _ledger("pack", "index", "latents")
    ledger.add_constant("table", KB)
    _add(ledger, "lookup", ["table", "index"], "row")
    _add(ledger, "quantize", ["row"], "wide")
    _add(ledger, "layout", ["pack"], "factor")
    _add(ledger, "convolution", ["latents"], "tokens")
    _add(ledger, "layout", ["tokens"], "heads")
    assert ledger.product_class("tokens", "wide") == "linear"
    assert ledger.product_class("tokens", "factor") == "linear"
    assert ledger.product_class("tokens", "heads") == "attention"


def test_elements_of_four_bits_share_bytes() -> None:
    assert TensorSize(shape=(3, 3), bits=4).size_bytes == 5
    assert TensorSize(shape=(), bits=32).size_bytes == 4
