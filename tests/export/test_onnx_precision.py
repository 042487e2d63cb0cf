"""int8 and int4 ONNX programs: they equal the eager model within what bits allow, and layers are kept as asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from kind_core.closeness import psnr_db
from kind_core.errors import ExportError
from kind_core.precisions import PrecisionName
from kind_core.schedule import read_sampler_table
from kind_export.precision import count_bytes, quantizable_layers
from kind_export.rewrites import RewriteOptions, rewrite
from kind_export.target_rows import TARGET_ROWS
from kind_export.targets.onnx.quantization import find_products
from kind_export.targets.programs import make_step
from kind_export.targets.target import Lowering, TargetOptions, load_target
from kind_runtimes.engines.onnx import open_program
from kind_runtimes.manifest import ProgramSpec
from tiny import tiny_config, tiny_model, tiny_model_config

_BITS: tuple[PrecisionName, ...] = ("int8", "int4")


@pytest.fixture(scope="module")
def lowering() -> Lowering:
    dit = tiny_config(num_classes=1, hidden_size=64, learngene_rank=40)
    config = tiny_model_config(dit, noise_schedule="squaredcos_cap_v2", prediction_type="sample")
    compact = rewrite(tiny_model(dit), read_sampler_table(config.diffusion, "dpmpp", 4), RewriteOptions())
    return make_step(compact, load_target("onnx"), TargetOptions(precision="fp32"))


def _lower(
    lowering: Lowering, file: Path, precision: PrecisionName, keep: frozenset[str] = frozenset()
) -> onnx.ModelProto:
    load_target("onnx").lower(lowering, file, TargetOptions(precision=precision, keep=keep))
    return onnx.load(file)


def _compare_db(lowering: Lowering, file: Path) -> float:
    """The worst of several steps against the eager module."""
    program = open_program(
        file, ProgramSpec(name="step", file=file.name, inputs=lowering.inputs, outputs=lowering.outputs)
    )
    generator = torch.Generator().manual_seed(0)
    worst = np.inf
    for index in range(4):
        inputs = [torch.randn(one.shape, generator=generator) for one in lowering.example[:2]]
        inputs += [torch.tensor([index], dtype=torch.int32), torch.zeros(1, dtype=torch.int32), torch.tensor([2.0])]
        with torch.no_grad():
            expected = lowering.module(*inputs)[0].numpy()
        names = [spec.name for spec in lowering.inputs]
        actual = program({name: one.numpy() for name, one in zip(names, inputs, strict=True)})
        worst = min(worst, psnr_db(expected, actual["next_latents"]))
    return worst


@pytest.mark.parametrize(("precision", "expected_db"), [("int8", 40.0), ("int4", 25.0)])
def test_artifact_equals_eager_within_its_bits(
    lowering: Lowering, tmp_path: Path, precision: PrecisionName, expected_db: float
) -> None:
    _lower(lowering, tmp_path / "step.onnx", precision)
    measured = _compare_db(lowering, tmp_path / "step.onnx")
    assert expected_db <= measured < 90  # equal would mean that nothing was quantised


@pytest.mark.parametrize("precision", _BITS)
def test_no_processor_saturates_a_sum_of_two_products(
    lowering: Lowering, tmp_path: Path, precision: PrecisionName
) -> None:
    """As onnxruntime's kernels for x86 without VNNI add them, in 16 bits, of activations up to 255."""
    kept = frozenset(list(quantizable_layers(lowering.module))[:3]) if precision == "int4" else frozenset()
    model = _lower(lowering, tmp_path / "step.onnx", precision, kept)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    products = [weights[node.input[1]] for node in model.graph.node if node.op_type == "MatMulInteger"]
    assert products
    for weight in products:
        assert weight.dtype == np.int8
        largest = np.abs(weight.astype(int)).max(axis=0)  # of each output channel
        assert 2 * 255 * largest.max() <= np.iinfo(np.int16).max
        assert largest.min() >= 63  # no more of the range is given away


def test_layers_that_are_kept_stay_in_floating_point(lowering: Lowering, tmp_path: Path) -> None:
    layers = list(quantizable_layers(lowering.module))
    none = _lower(lowering, tmp_path / "none.onnx", "int8")
    half = _lower(lowering, tmp_path / "half.onnx", "int8", frozenset(layers[::2]))
    everything = _lower(lowering, tmp_path / "all.onnx", "int8", frozenset(layers))
    counts = [sum(n.op_type == "MatMulInteger" for n in model.graph.node) for model in (none, half, everything)]
    assert counts == [len(layers), len(layers[1::2]), 0]
    assert _compare_db(lowering, tmp_path / "all.onnx") > 70


def test_what_int4_keeps_is_int8(lowering: Lowering, tmp_path: Path) -> None:
    layers = list(quantizable_layers(lowering.module))
    model = _lower(lowering, tmp_path / "step.onnx", "int4", frozenset(layers[:3]))
    types = [node.op_type for node in model.graph.node]
    assert types.count("MatMulNBits") == len(layers) - 3
    assert types.count("MatMulInteger") == 3


@pytest.mark.parametrize("precision", _BITS)
def test_same_bytes_twice(lowering: Lowering, tmp_path: Path, precision: PrecisionName) -> None:
    for name in "ab":
        _lower(lowering, tmp_path / f"{name}.onnx", precision)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize("precision", _BITS)
def test_no_large_constant_is_fp32(lowering: Lowering, tmp_path: Path, precision: PrecisionName) -> None:
    model = _lower(lowering, tmp_path / "step.onnx", precision)
    large = [t.name for t in model.graph.initializer if np.prod(t.dims) >= 4096 and t.data_type == TensorProto.FLOAT]
    assert large == []


@pytest.mark.parametrize("precision", ["fp32", *_BITS])
def test_bytes_are_counted_before_lowering(lowering: Lowering, tmp_path: Path, precision: PrecisionName) -> None:
    weights = _lower(lowering, tmp_path / "step.onnx", precision).graph.initializer
    written = sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in weights)
    counted = count_bytes(lowering.module, precision)
    # scales and small constants are not weights; at the sizes that matter both are nothing
    assert counted == pytest.approx(written, rel=0.15)


def test_graph_beyond_the_limit_is_not_written(
    lowering: Lowering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_target("onnx"), "ROW", replace(TARGET_ROWS["onnx"], max_bytes=1000))
    with pytest.raises(ExportError, match="a file of this format holds"):
        _lower(lowering, tmp_path / "step.onnx", "fp32")
    assert not list(tmp_path.iterdir())


def test_layer_without_a_product_is_an_error(lowering: Lowering, tmp_path: Path) -> None:
    model = _lower(lowering, tmp_path / "step.onnx", "fp32")  # its notes are stripped
    with pytest.raises(ExportError, match="no product of layer"):
        find_products(model, quantizable_layers(lowering.module))
