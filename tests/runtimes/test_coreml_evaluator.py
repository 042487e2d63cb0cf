"""Whole saved packages run op by op: a DiT-like network, compressed weights, and what must be refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coreml_programs import GRID, PATCH, STEPS, SmallDiT, count_ops, run_one, save_module, save_program
from kind_core.errors import TargetError
from kind_runtimes.coreml.evaluator import Evaluator
from kind_runtimes.coreml.package import CoreMLPackage, TensorSpec
from kind_runtimes.coreml.steps import bind_function
from kind_runtimes.quiet import import_coremltools


@pytest.fixture(scope="module")
def dit(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallDiT, dict[tuple[str, str], Any], Path]:
    """The network, and its converted models by (target, precision): fused attention for iOS 18."""
    folder = tmp_path_factory.mktemp("dit")
    torch.manual_seed(0)
    plain = SmallDiT()
    fused = SmallDiT(fused_attention=True)
    fused.load_state_dict(plain.state_dict())
    examples = (torch.zeros(2, 3, GRID * PATCH, GRID * PATCH), torch.zeros(1, dtype=torch.int32))
    models = {}
    for target, network in (("iOS17", plain), ("iOS18", fused)):
        for precision in ("FLOAT32", "FLOAT16"):
            path = folder / f"{target}{precision}.mlpackage"
            models[target, precision] = save_module(network, examples, path, target, precision)
    return plain, models, folder


def make_inputs(step: int) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(step).standard_normal((2, 3, GRID * PATCH, GRID * PATCH))
    return {"x": noise.astype(np.float32), "step": np.array([step], np.int32)}


def run_eager(network: SmallDiT, inputs: dict[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(inputs["x"]), torch.from_numpy(inputs["step"])).numpy()


def measure_psnr_db(value: np.ndarray, reference: np.ndarray) -> float:
    error = np.mean((value.astype(np.float64) - reference) ** 2)
    return float(10 * np.log10(np.ptp(reference.astype(np.float64)) ** 2 / error))


@pytest.mark.parametrize("target", ["iOS17", "iOS18"])
def test_fp32_program_equals_eager(target: str, dit: Any) -> None:
    network, _, folder = dit
    package = CoreMLPackage.open(folder / f"{target}FLOAT32.mlpackage")
    assert package.inputs == {
        "x": TensorSpec(shape=(2, 3, 8, 8), dtype="float32"),
        "step": TensorSpec(shape=(1,), dtype="int32"),
    }
    assert ("scaled_dot_product_attention" in count_ops(package)) == (target == "iOS18")
    evaluator = Evaluator(package)
    for step in (0, STEPS - 1):
        inputs = make_inputs(step)
        np.testing.assert_allclose(run_one(evaluator, **inputs), run_eager(network, inputs), atol=1e-5)


@pytest.mark.parametrize("target", ["iOS17", "iOS18"])
def test_fp16_program_is_rounded_and_near_eager(target: str, dit: Any) -> None:
    network, _, folder = dit
    package = CoreMLPackage.open(folder / f"{target}FLOAT16.mlpackage")
    inputs = make_inputs(1)
    reference = run_eager(network, inputs)
    (spec,) = package.outputs.values()
    rounded = run_one(Evaluator(package), **inputs)
    assert rounded.dtype == np.dtype(spec.dtype) == np.float16
    assert measure_psnr_db(rounded, reference) > 50
    exact = run_one(Evaluator(package, arithmetic="fp32"), **inputs)
    assert exact.dtype == np.float32
    # Without the roundings of activations only those of the weights remain.
    assert measure_psnr_db(exact, reference) > measure_psnr_db(rounded, reference)


def test_values_come_in_order_in_the_types_of_the_program(dit: Any) -> None:
    evaluator = Evaluator(CoreMLPackage.open(dit[2] / "iOS17FLOAT16.mlpackage"))
    values = list(evaluator.values(make_inputs(1)))
    assert {one.op_type for one in values} == set(count_ops(evaluator.package))
    np.testing.assert_array_equal(values[-1].value, run_one(evaluator, **make_inputs(1)))
    assert {one.value.dtype for one in values if one.op_type == "linear"} == {np.dtype(np.float16)}


def test_every_intermediate_is_released_once(dit: Any) -> None:
    program = bind_function(CoreMLPackage.open(dit[2] / "iOS17FLOAT32.mlpackage").load_function())
    released = [slot for step in program.steps for slot in step.releases]
    assert sorted([*released, *program.outputs.values()]) == list(range(program.num_slots))


@pytest.mark.parametrize(
    ("target", "how", "constexpr", "floor_db"),
    [
        ("iOS17", "int8", "constexpr_affine_dequantize", 30),
        ("iOS18", "int8", "constexpr_blockwise_shift_scale", 30),
        ("iOS18", "int4", "constexpr_blockwise_shift_scale", 15),
        ("iOS17", "lut8", "constexpr_lut_to_dense", 30),
        ("iOS18", "lut4", "constexpr_lut_to_dense", 15),
    ],
)
def test_compressed_weights_are_near_the_original(
    target: str, how: str, constexpr: str, floor_db: float, dit: Any, tmp_path: Path
) -> None:
    _, models, folder = dit
    path = tmp_path / "small.mlpackage"
    compress_weights(models[target, "FLOAT16"], how).save(str(path))
    package = CoreMLPackage.open(path)
    assert count_ops(package)[constexpr] > 0
    original = CoreMLPackage.open(folder / f"{target}FLOAT16.mlpackage")
    inputs = make_inputs(2)
    psnr_db = measure_psnr_db(run_one(Evaluator(package), **inputs), run_one(Evaluator(original), **inputs))
    assert floor_db < psnr_db < 100  # near, and really compressed


def compress_weights(model: Any, how: str) -> Any:
    from coremltools.optimize import coreml as optimize

    if how.startswith("lut"):
        palette = optimize.OpPalettizerConfig(mode="uniform", nbits=int(how[3:]), weight_threshold=512)
        return optimize.palettize_weights(model, optimize.OptimizationConfig(global_config=palette))
    block = {"granularity": "per_block", "block_size": 16} if how == "int4" else {}
    linear = optimize.OpLinearQuantizerConfig(dtype=how, weight_threshold=512, **block)
    return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(global_config=linear))


def test_only_the_saved_weights_count(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((32, 64)).astype(np.float32)
    package = save_program(
        lambda mb, t: mb.linear(x=t.x, weight=weight), {"x": ((2, 64), "fp32")}, tmp_path / "linear.mlpackage"
    )
    x = np.ones((2, 64), np.float32)
    before = run_one(Evaluator(package), x=x)
    blob = package.path / "Data/com.apple.CoreML/weights/weight.bin"
    assert weight.tobytes() in blob.read_bytes()
    blob.write_bytes(blob.read_bytes().replace(weight.tobytes(), (2 * weight).tobytes()))
    np.testing.assert_allclose(run_one(Evaluator(package), x=x), 2 * before, rtol=1e-6)


def test_runs_share_no_memory(tmp_path: Path) -> None:
    package = save_program(
        lambda mb, t: (mb.reshape(x=t.x, shape=[6]), mb.const(val=np.ones((2, 3), np.float32), name="ones")),
        {"x": ((2, 3), "fp32")},
        tmp_path / "views.mlpackage",
    )
    evaluator = Evaluator(package)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for _ in range(2):
        flat, ones = evaluator.run({"x": x}).values()
        np.testing.assert_array_equal(flat, np.arange(6))
        np.testing.assert_array_equal(ones, np.ones((2, 3)))
        flat[:] = ones[:] = -1


def test_sizes_known_at_run_time_only(tmp_path: Path) -> None:
    """Covers shape, range_1d, fill and slices whose arguments are computed."""
    ct = import_coremltools()
    from coremltools.converters.mil import mil

    def build(mb: Any, t: Any) -> Any:
        rows = mb.slice_by_index(x=mb.shape(x=t.x), begin=[0], end=[1], squeeze_mask=[True])
        counts = mb.range_1d(start=0, end=rows, step=1)
        ones = mb.fill(shape=mb.shape(x=t.x), value=1.0)
        end = mb.concat(values=(mb.floor_div(x=rows, y=2), 4), axis=0)
        return mb.add(x=t.x, y=ones), counts, mb.slice_by_index(x=t.x, begin=[0, 0], end=end)

    package = save_program(
        build,
        {"x": ((mil.get_new_symbol(), 4), "fp32")},
        tmp_path / "dynamic.mlpackage",
        inputs=[ct.TensorType(name="x", shape=(ct.RangeDim(2, 9), 4))],
    )
    assert {"shape", "range_1d", "fill"} <= set(count_ops(package))
    evaluator = Evaluator(package)
    for size in (3, 8):
        x = np.random.default_rng(size).standard_normal((size, 4)).astype(np.float32)
        added, counts, half = evaluator.run({"x": x}).values()
        np.testing.assert_array_equal(added, x + 1)
        np.testing.assert_array_equal(counts, np.arange(size))
        np.testing.assert_array_equal(half, x[: size // 2])


@pytest.mark.parametrize("target", ["iOS16", "iOS17"])
def test_negative_indices_wrap_and_others_are_refused(target: str, tmp_path: Path) -> None:
    package = save_program(
        lambda mb, t: mb.gather(x=t.x, indices=t.i, axis=0, name="rows"),
        {"x": ((4, 2), "fp32"), "i": ((2,), "int32")},
        tmp_path / "gather.mlpackage",
        target,
    )
    evaluator = Evaluator(package)
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    np.testing.assert_array_equal(run_one(evaluator, x=x, i=np.array([-1, 0], np.int32)), x[[-1, 0]])
    for wrong in (4, -5):
        with pytest.raises(TargetError, match=r"op 'rows.*' of type gather failed: index .* out of bounds"):
            evaluator.run({"x": x, "i": np.array([0, wrong], np.int32)})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda mb, t: mb.topk(x=t.x, k=2, name="best")[0], "'best_0' has type topk, which has no rule"),
        (
            lambda mb, t: mb.cond(
                pred=mb.less(x=mb.reduce_sum(x=t.x, axes=[0]), y=0.0),
                _true_fn=lambda: mb.add(x=t.x, y=1.0),
                _false_fn=lambda: mb.add(x=t.x, y=2.0),
                name="choice",
            ),
            "'choice' of type cond has nested blocks",
        ),
    ],
)
def test_op_without_rule_is_named_before_anything_runs(build: Any, message: str, tmp_path: Path) -> None:
    package = save_program(build, {"x": ((4,), "fp32")}, tmp_path / "odd.mlpackage")
    with pytest.raises(TargetError, match=message) as caught:
        Evaluator(package)
    assert "kind_runtimes/coreml/ops" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": None}, r"the inputs are \['x'\], expected \['step', 'x'\]"),
        ({"x": np.zeros((1, 3, 8, 8), np.float32)}, r"'x' has shape \(1, 3, 8, 8\), expected \(2, 3, 8, 8\)"),
        ({"step": np.array([1.0], np.float32)}, "'step' has dtype float32, expected int32"),
    ],
)
def test_wrong_inputs_are_named(change: dict[str, Any], message: str, dit: Any) -> None:
    evaluator = Evaluator(CoreMLPackage.open(dit[2] / "iOS17FLOAT32.mlpackage"))
    inputs = {name: value for name, value in (make_inputs(0) | change).items() if value is not None}
    with pytest.raises(TargetError, match=message):
        evaluator.run(inputs)
