"""Forecasts: the paper's floor, ranges that widen with doubt, and what must move a forecast which way."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from itertools import pairwise

import pytest
from made_up_work import make_op, make_work

from kind_bench.counting.work import ProgramWork
from kind_bench.forecasting.anchors import compute_share, describe_checks, fit_anchors, held_out, leave_one_out
from kind_bench.forecasting.devices import Device, list_devices, load_device
from kind_bench.forecasting.families import predict_share
from kind_bench.forecasting.forecast import Forecast, default_unit, forecast, forecast_picture
from kind_bench.forecasting.peaks import Range
from kind_bench.forecasting.words import describe_devices, describe_figures
from kind_core.config import preset
from kind_core.errors import DeviceError
from kind_core.flops import count_flops


def width(result: Forecast) -> float:
    assert result.high_ms is not None
    assert result.low_ms is not None
    return result.high_ms / result.low_ms


def doubt(device: Device) -> Device:
    """The same chip with a less sure bandwidth."""
    figure = device.memory_bandwidth_gbs
    assert figure is not None
    return replace(
        device, memory_bandwidth_gbs=replace(figure, low=figure.value / 3, high=figure.value * 3, status="unconfirmed")
    )


@pytest.mark.parametrize(("device", "seconds"), [("a18", 3.47), ("kirin-9020", 3.84), ("snapdragon-8-gen-3", 2.38)])
def test_the_papers_latencies_are_its_floor_of_500_passes(device: str, seconds: float) -> None:
    flops = count_flops(preset("kind-mobile")[0]).total
    work = ProgramWork(
        target="onnx", program="step", ops=(make_op(flops=round(flops), bias_elements=0),), weight_bytes=0,
        peak_activation_bytes=0, num_delegates=0,
    )  # fmt: skip
    floor_ms = forecast(work, load_device(device)).floor_ms
    assert floor_ms is not None
    assert 500 * floor_ms / 1e3 == pytest.approx(seconds, abs=0.005)


def test_every_device_answers_with_a_range_or_a_reason() -> None:
    for device in list_devices():
        for target, precision in (("coreml", "fp16"), ("onnx", "int8"), ("executorch", "fp32")):
            result = forecast(make_work(target=target, precision=precision), device)  # type: ignore[arg-type]
            assert result.kind == "forecast"
            if result.likely_ms is None:
                assert result.reason
                assert result.method == "floor only"
                continue
            assert result.reason == ""
            assert result.low_ms is not None
            assert result.high_ms is not None
            assert 0 < result.low_ms <= result.likely_ms <= result.high_ms
            assert set(result.limited_by) == {"linear", "elementwise"}
            assert sum(result.ms_by_class.values()) <= result.likely_ms * 1.001
            json.dumps(result.to_dict())


def test_a_core_ml_program_runs_on_the_neural_engine_and_nowhere_but_at_apple() -> None:
    assert forecast(make_work(), load_device("a18")).unit == "npu"
    assert default_unit(make_work(precision="fp32")) == "gpu"
    assert default_unit(make_work(target="onnx")) == "cpu"
    elsewhere = forecast(make_work(), load_device("snapdragon-8-gen-3"))
    assert elsewhere.likely_ms is None
    assert "Apple" in elsewhere.reason
    assert elsewhere.floor_ms is not None


@pytest.mark.parametrize(("main", "other"), [("fp32", "int8"), ("int8", "fp32")])
def test_what_multiplies_nothing_is_timed_at_the_main_precision(main: str, other: str) -> None:
    device = load_device("apple-a15")
    add = make_op(op_type="Add", op_class="elementwise", precision="fp16", flops=0, activation_bytes=2**22)
    products = [make_op(precision=main)] * 3
    alone, mixed = (
        replace(make_work(target="onnx"), ops=(*products, *others, add)) for others in ((), (make_op(precision=other),))
    )
    assert forecast(mixed, device).ms_by_class["elementwise"] == forecast(alone, device).ms_by_class["elementwise"]


def test_without_bandwidth_there_is_the_floor_and_a_reason() -> None:
    result = forecast(make_work(target="onnx", precision="fp32"), load_device("kirin-9020"), unit="gpu")
    assert (result.method, result.low_ms, result.likely_ms, result.high_ms) == ("floor only", None, None, None)
    assert result.floor_ms is not None
    assert result.floor_ms > 0
    assert "no memory bandwidth is known for Kirin 9020" in result.reason
    assert "kind-bench calibrate" in result.reason


def test_an_unconfirmed_figure_widens_the_range() -> None:
    device = load_device("a16")
    reading = replace(make_work(), ops=(make_op(flops=1000, weight_bytes=10**8),))
    sure, unsure = (forecast(reading, chip) for chip in (device, doubt(device)))
    assert width(unsure) > 1.2 * width(sure)
    assert unsure.likely_ms == sure.likely_ms
    assert unsure.unsure["memory_bandwidth_gbs"] == "unconfirmed"
    assert "memory_bandwidth_gbs" not in sure.unsure


def test_a_chip_with_its_own_measurement_is_surer_than_its_vendors_others() -> None:
    work = make_work(target="onnx")
    own = forecast(work, load_device("snapdragon-8-gen-3"), unit="npu")
    other = forecast(work, replace(load_device("snapdragon-8-gen-3"), id="another"), unit="npu")
    assert width(own) < width(other)
    assert "its own measurements" in " ".join(own.notes)
    assert "qualcomm's measurements" in " ".join(other.notes)


def test_more_of_anything_takes_longer_and_less_precision_does_not() -> None:
    device = load_device("a18")
    times = [forecast(make_work(scale=scale), device).likely_ms or 0 for scale in (0.1, 1, 10, 100)]
    assert all(a < b for a, b in pairwise(times))
    layers = [forecast(make_work(layers=n), device).likely_ms or 0 for n in (1, 4, 16)]
    assert all(a < b for a, b in pairwise(layers))
    snapdragon = load_device("galaxy-s24")
    fp16, int8 = (
        forecast(make_work(target="onnx", scale=50), snapdragon, unit="npu", precision=p).likely_ms or 0
        for p in ("fp16", "int8")  # type: ignore[arg-type]
    )
    assert int8 < fp16


def test_limits_follow_the_work() -> None:
    device = load_device("a18")
    big_weights = replace(make_work(layers=1), ops=(make_op(flops=1000, weight_bytes=10**8),))
    assert forecast(big_weights, device).limited_by == {"linear": "bandwidth"}
    many_flops = replace(make_work(layers=1), ops=(make_op(flops=10**11),))
    assert forecast(many_flops, device).limited_by == {"linear": "compute"}
    tiny = replace(
        make_work(target="onnx"), ops=(make_op(precision="fp32", flops=10, weight_bytes=4, activation_bytes=4),)
    )
    assert forecast(tiny, device).limited_by == {"linear": "dispatch"}


def test_a_speed_of_whole_models_has_the_rest_inside() -> None:
    """An activation costs nothing beside a share taken on whole models, and its traffic beside an assumed one."""
    products = replace(make_work(), ops=make_work().ops[::2])
    for unit, is_inside in (("npu", True), ("gpu", False)):
        with_rest, alone = (forecast(w, load_device("a18"), unit=unit).high_ms for w in (make_work(), products))  # type: ignore[arg-type]
        assert (with_rest == pytest.approx(alone)) == is_inside


def test_portable_kernels_are_slower() -> None:
    device = load_device("raspberry-pi-5")
    ops = (make_op(op_class="norm", precision="fp32", flops=0, weight_bytes=0),)
    work = replace(make_work(target="executorch"), ops=ops)
    portable = replace(work, ops=(replace(ops[0], backend="portable"),))
    fast, slow = (forecast(one, device).likely_ms or 0 for one in (work, portable))
    assert slow > 2 * fast


def test_what_the_neural_engine_does_not_run_is_named() -> None:
    engine = make_op(backend="Neural Engine (by rule)")
    other = make_op(op_type="gather", op_class="lookup", backend="CPU or GPU (by rule)", flops=0)
    mixed = replace(make_work(), ops=(engine, other, other))
    notes = forecast(mixed, load_device("a18")).notes
    assert any("2 x gather" in note for note in notes)
    assert not any("gather" in note for note in forecast(mixed, load_device("a18"), unit="gpu").notes)
    assert not any("by rule" in note for note in forecast(replace(mixed, ops=(engine,)), load_device("a18")).notes)


def test_warm_is_slower_and_first_runs_are_not_guessed() -> None:
    result = forecast(make_work(), load_device("iphone-15-pro"))
    assert result.sustained_ms == pytest.approx((result.likely_ms or 0) / 0.74)
    assert result.first_run_ms is None
    assert any("first run" in note for note in result.notes)
    assert forecast(make_work(target="onnx", precision="fp32"), load_device("raspberry-pi-5")).sustained_ms is None


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(DeviceError, match="no figures of a gpu for Raspberry Pi 5, only of: cpu"):
        forecast(make_work(target="onnx"), load_device("raspberry-pi-5"), unit="gpu")


def test_a_picture_is_its_steps_and_a_decode() -> None:
    device = load_device("a18")
    works = {"step": make_work(), "decode": make_work(program="decode", layers=1)}
    step, decode = (forecast(works[name], device) for name in ("step", "decode"))
    picture = forecast_picture(works, device, steps=20)
    assert picture.program == "picture"
    for name in ("floor_ms", "low_ms", "likely_ms", "high_ms", "sustained_ms"):
        assert getattr(picture, name) == pytest.approx(20 * getattr(step, name) + getattr(decode, name)), name
    half = make_work(program="step_unguided", layers=2)
    faster = forecast_picture({**works, "step_unguided": half}, device, steps=20, unguided_steps=10)
    assert (faster.likely_ms or 0) < (picture.likely_ms or 0)
    untold = forecast_picture(works, device, steps=20, unguided_steps=10)
    assert untold.likely_ms == picture.likely_ms
    assert any("counted as guided" in note for note in untold.notes)
    missing = forecast_picture(works, load_device("kirin-9020"), steps=20)
    assert missing.likely_ms is None
    assert missing.reason


def test_the_public_rows_give_the_effective_speeds_that_were_derived_from_them() -> None:
    effective = {row.device.id: row.flops / 1e6 / row.ms for row in fit_anchors() if row.precision == "fp16"}
    assert effective["snapdragon-8-gen-2"] == pytest.approx(4400, rel=0.01)
    assert effective["snapdragon-8-gen-3"] == pytest.approx(5900, rel=0.01)
    assert effective["snapdragon-8-elite"] == pytest.approx(8900, rel=0.01)


def test_leaving_a_device_out_does_not_see_it() -> None:
    checks = leave_one_out()
    alone = {"adreno", "mali", "powervr"}  # one chip each, which no other describes
    assert len(checks) == len([row for row in fit_anchors() if row.group[0] not in alone])
    for check in checks:
        # a chip that its vendor's others describe exactly would have its own share
        assert check.factor >= 1
        assert check.forecast_ms != pytest.approx(check.anchor.ms, rel=1e-6)
    assert max(check.factor for check in checks) < 2
    assert {check.anchor.workload for check in held_out()} == {"Stable Diffusion 1.5 UNet", "CLIP ViT-B/32, text"}
    assert max(check.factor for check in held_out()) < 1.6


def test_chips_left_out_are_forecast_within_the_stated_error() -> None:
    checks = leave_one_out()
    assert statistics.median(abs(check.error) for check in checks) <= 0.18
    # an A19 reaches four fifths of its two big cores' vectors, so it computes on more: nobody says on how much
    worst = {check.anchor.device.id for check in checks if abs(check.error) > 0.45}
    assert worst == {"apple-a19"}


def test_years_describe_npus_whose_makers_print_little() -> None:
    rows = [row for row in fit_anchors() if row.group == ("qualcomm", "npu", "fp16")]
    others = [row for row in rows if row.device.id != "snapdragon-8-gen-2"]
    by_peak, by_year = (predict_share(others, 11350, 2022, "ViT-B/16", by_year=flag) for flag in (False, True))
    measured = next(row.share for row in rows if row not in others)
    assert by_peak / measured < 0.7  # by its peak it would be that much slower
    assert by_year / measured == pytest.approx(1, abs=0.1)
    assert predict_share(others, 11350, None, "ViT-B/16", by_year=True) == pytest.approx(by_peak)


def test_a_gpu_s_maker_is_part_of_its_forecast() -> None:
    shares = {
        name: compute_share(load_device(name), "gpu", "fp16") for name in ("galaxy-s26", "pixel-10", "exynos-990")
    }
    assert all(share.is_own for share in shares.values())
    reached = [share.share.value for share in shares.values()]
    assert reached == sorted(reached, reverse=True)  # Adreno, PowerVR, Mali
    older = compute_share(load_device("snapdragon-8-gen-3"), "gpu", "fp16")
    assert not older.is_own
    assert "adreno" in older.source
    assert older.share.value == pytest.approx(reached[0], rel=0.01)
    assert older.share.high / older.share.low > shares["galaxy-s26"].share.high / shares["galaxy-s26"].share.low


def test_the_checks_are_printed_with_their_errors() -> None:
    text = describe_checks()
    assert "leave one device out" in text
    assert "Snapdragon 8 Gen 3" in text
    assert "median" in text


def test_errors_of_a_product_add_up_as_squares() -> None:
    exact, wide = Range(2, 2, 2), Range(1, 2, 4)
    assert exact.times(wide) == pytest.approx((2, 4, 8))
    both = wide.times(wide)
    assert wide.high / wide.low < both.high / both.low < (wide.high / wide.low) ** 2


def test_the_table_shows_every_device_and_marks_doubt() -> None:
    table = describe_devices(list_devices())
    assert all(device.name in table for device in list_devices())
    assert "60 ?" in table
    figures = describe_figures(load_device("kirin-9020"))
    assert "1720" in figures
    assert "answers to reviewers" in figures
