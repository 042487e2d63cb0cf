"""Calibration: rates come back from times that were made of them, and forecasts use them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_work import make_op, make_work

from kind_bench.counting.work import ProgramWork
from kind_bench.forecasting.calibration import (
    Calibration,
    Measurement,
    fit_measurements,
    limit_of,
    op_amounts,
    parse_calibration,
    work_amounts,
    write_calibrated,
)
from kind_bench.forecasting.devices import Device, load_device
from kind_bench.forecasting.forecast import forecast
from kind_bench.forecasting.measurements import fit, measured_device
from kind_bench.forecasting.nonnegative import fit_rates
from kind_bench.forecasting.roofline import PORTABLE
from kind_core.errors import DeviceError, OutputError

HASH = "a" * 64
TRUE_MS = {
    "gflop linear fp32": 20.0, "gflop linear int8": 5.0, "MB weights": 0.2, "MB elementwise": 0.5, "MB linear": 0.02,
    "operators": 0.01, "calls": 0.1,
}  # fmt: skip


def true_ms(work: ProgramWork) -> float:
    """On a device whose rates are known; it has no attention or anything else of another kind."""
    return sum(TRUE_MS[name] * amount for name, amount in work_amounts(work).items())


def made_up_grid(count: int, seed: int = 0) -> list[ProgramWork]:
    """Works of one runtime that differ in everything that has a rate."""
    generator = np.random.default_rng(seed)
    works = []
    for i in range(count):
        scale, weights, other = generator.uniform(0.2, 5, 3)
        linear = make_op(
            precision=("fp32", "int8")[i % 2],
            flops=int(5e8 * scale),
            weight_bytes=int(1e6 * weights),
            activation_bytes=int(1e6 * generator.uniform(0.2, 5)),
        )
        gelu = make_op(
            op_class="elementwise", precision="fp32", flops=0, weight_bytes=0, activation_bytes=int(1e6 * other)
        )
        ops = (linear, gelu) * int(generator.integers(1, 20))
        works.append(replace(make_work(target="onnx"), ops=ops, weight_bytes=linear.weight_bytes))
    return works


def measure(works: list[ProgramWork], noise: float = 0, **ways: Any) -> list[Measurement]:
    generator = np.random.default_rng(1)
    return [Measurement(work=w, ms=true_ms(w) * math.exp(noise * generator.standard_normal()), **ways) for w in works]


def results(*cases: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    bundle = {"name": "panda", "manifest_sha256": HASH}
    return {"format_version": 1, "kind": "measured", "bundle": bundle, "cases": list(cases), **changes}


def spread(ms: float) -> dict[str, Any]:
    return {"samples": [ms * 0.9, ms, ms * 1.4]}


@pytest.fixture
def host() -> Device:
    return Device(id="host", name="A host", vendor="mine", form="board")


def test_rates_come_back_from_many_measurements(host: Device) -> None:
    calibration = fit_measurements(measure(made_up_grid(60)))
    rates = calibration.rates[0]
    for name in ("gflop linear fp32", "MB weights", "MB elementwise"):
        assert rates.ms_per[name] == pytest.approx(TRUE_MS[name], rel=0.05), name
    assert rates.median_error is not None
    assert rates.median_error < 0.01
    for work in made_up_grid(20, seed=7):
        result = forecast(work, host, calibration=calibration)
        assert result.likely_ms == pytest.approx(true_ms(work), rel=0.05)
        assert result.method == "calibrated"
        assert result.low_ms is not None
        assert result.high_ms is not None
        assert result.low_ms <= result.likely_ms <= result.high_ms  # type: ignore[operator]


def test_noise_widens_the_range_to_hold_nine_of_ten(host: Device) -> None:
    works = made_up_grid(60)
    exact, noisy = (fit_measurements(measure(works, noise)).rates[0] for noise in (0.0, 0.15))
    assert exact.factor < 1.05 < noisy.factor < 1.6
    calibration = Calibration(rates=(noisy,))
    held = 0
    for one in measure(made_up_grid(100, seed=9), noise=0.15):
        result = forecast(one.work, host, calibration=calibration)
        assert result.low_ms is not None
        assert result.high_ms is not None
        held += result.low_ms <= one.ms <= result.high_ms
    assert 80 <= held <= 99


def test_one_measurement_fits_the_speed_alone(host: Device) -> None:
    work = made_up_grid(1)[0]
    slow, fast = (fit_measurements([Measurement(work=work, ms=ms)]) for ms in (100.0, 10.0))
    for calibration, ms in ((slow, 100.0), (fast, 10.0)):
        result = forecast(work, host, calibration=calibration)
        assert result.likely_ms == pytest.approx(ms, rel=1e-6)
        assert calibration.rates[0].median_error is None
    ratios = {slow.rates[0].ms_per[name] / fast.rates[0].ms_per[name] for name in TRUE_MS}
    assert min(ratios) == pytest.approx(max(ratios)) == pytest.approx(10)


def test_what_was_never_measured_widens_the_range_and_is_named(host: Device) -> None:
    grid = [work for work in made_up_grid(40) if work.ops[0].precision == "fp32"]
    calibration = fit_measurements(measure(grid))
    int8 = next(work for work in made_up_grid(4) if work.ops[0].precision == "int8")
    known, unknown = (forecast(work, host, calibration=calibration) for work in (grid[0], int8))
    assert known.high_ms is not None
    assert unknown.high_ms is not None
    assert unknown.high_ms / (unknown.likely_ms or 1) > 1.4 * known.high_ms / (known.likely_ms or 1)
    assert any("never measured there: gflop linear int8" in note for note in unknown.notes)
    assert not any("never measured" in note for note in known.notes)


def test_no_rate_is_negative_whatever_the_times() -> None:
    generator = np.random.default_rng(3)
    rows = generator.uniform(0, 1, (30, 5)).tolist()
    times = generator.uniform(0.1, 3, 30).tolist()
    fitted = fit_rates(rows, times, [1, 2, 3, 4, 5])
    assert min(fitted.rates) >= 0


def test_the_least_squares_agree_with_scipy() -> None:
    scipy = pytest.importorskip("scipy.optimize", reason="an independent solver, where something brought it along")
    from kind_bench.forecasting.nonnegative import _minimise

    generator = np.random.default_rng(4)
    for _ in range(20):
        rows, aim = generator.standard_normal((12, 6)), generator.standard_normal(12)
        expected, _ = scipy.nnls(rows, aim)
        assert _minimise(rows.T @ rows, rows.T @ aim) == pytest.approx(expected, abs=1e-8)


def test_limits_and_reshapes() -> None:
    assert {limit_of(name) for name in ("gflop attention", "gflop linear int8")} == {"compute"}
    assert limit_of("MB portable") == "bandwidth"
    assert {limit_of(name) for name in ("operators", "calls", "delegates")} == {"dispatch"}
    assert op_amounts(make_op(flops=0, weight_bytes=0, activation_bytes=0)) == {}
    portable = op_amounts(make_op(backend="portable", op_class="norm", flops=0, weight_bytes=0, activation_bytes=10**6))
    assert portable == {"operators": 1, "MB portable": 1}


def test_portable_kernels_have_the_name_that_counting_gives_them() -> None:
    from kind_bench.counting.executorch_program import BACKEND

    assert BACKEND == PORTABLE


def test_results_files_are_fitted_by_runtime_and_way_of_running(host: Device) -> None:
    works = {t: {"step": make_work(target=t), "decode": make_work(target=t, layers=1)} for t in ("onnx", "executorch")}
    cases = [
        {"runtime": "onnx", "engine": "x", "threads": n, "step_ms": spread(12 / n), "decode_ms": spread(3 / n)}
        for n in (1, 2)
    ]
    cases.append({
        "runtime": "executorch", "engine": "x", "step_ms": spread(5), "load_ms": {"first": 30.0},
        "sustained": {"after_s": 300, "step_ms": spread(10)},
    })  # fmt: skip
    calibration = fit([results(*cases)], {HASH: works})
    assert calibration.bundles == ("panda",)
    assert [(r.runtime, r.threads, r.num_measurements) for r in calibration.rates] == [
        ("onnx", 1, 2), ("onnx", 2, 2), ("executorch", None, 1),
    ]  # fmt: skip
    result = forecast(works["executorch"]["step"], host, calibration=calibration)
    assert result.likely_ms == pytest.approx(5)
    assert result.sustained_ms == pytest.approx(10)
    stored_mb = sum(work.weight_bytes for work in works["executorch"].values()) / 1e6
    step_mb = works["executorch"]["step"].weight_bytes / 1e6
    assert result.first_run_ms == pytest.approx(30 * step_mb / stored_mb + 5)
    two = calibration.find("onnx")
    assert two is not None
    assert two.threads == 2
    one = calibration.find("onnx", threads=1)
    assert one is not None
    assert one.time(work_amounts(works["onnx"]["step"])) > two.time(work_amounts(works["onnx"]["step"]))
    assert calibration.find("coreml") is None


def test_the_device_of_results_is_found_or_made(tmp_path: Path) -> None:
    processor = {"processor": "AMD EPYC"}
    assert (
        measured_device({"machine": {"system": "iOS 18", "processor": "iPhone17,3", "device": "a18"}}).id == "apple-a18"
    )
    new = measured_device({"machine": {"system": "Android 15", "processor": "SM9999", "model": "Some phone"}})
    assert (new.name, new.form) == ("Some phone", "phone")
    host = measured_device({"machine": {"system": "Linux 6", **processor}})
    assert (host.name, host.form) == ("AMD EPYC", "computer")
    work = made_up_grid(1)[0]
    write_calibrated(host, fit_measurements([Measurement(work=work, ms=7.0)]), tmp_path / "host.json")
    assert forecast(work, load_device(str(tmp_path / "host.json"))).likely_ms == pytest.approx(7)
    with pytest.raises(DeviceError, match="unknown device 'a99'"):
        measured_device({"machine": {"system": "iOS 18", "processor": "x", "device": "a99"}})


@pytest.mark.parametrize(
    ("runtime", "provider", "unit"),
    [
        ("onnx", None, "cpu"), ("onnx", "CPU", "cpu"), ("onnx", "CoreML", "npu"), ("executorch", None, "cpu"),
        ("coreml", None, "npu"), ("coreml", "cpu-and-gpu", "gpu"), ("coreml", "cpu-only", "cpu"),
    ],
)  # fmt: skip
def test_a_calibrated_forecast_names_the_unit_that_was_measured(
    host: Device, runtime: str, provider: str | None, unit: str
) -> None:
    calibration = fit_measurements([Measurement(work=make_work(target=runtime), ms=5, provider=provider)])
    assert forecast(make_work(target=runtime), host, calibration=calibration).unit == unit


def test_a_call_of_no_time_does_not_set_the_speed(host: Device) -> None:
    step, decode = make_work(target="onnx"), make_work(target="onnx", program="decode", layers=1, scale=1e-4)
    calibration = fit_measurements([Measurement(work=step, ms=30), Measurement(work=decode, ms=0.02)])
    assert calibration.rates[0].num_measurements == 1
    assert forecast(step, host, calibration=calibration).likely_ms == pytest.approx(30)


def test_few_measurements_leave_a_wide_range() -> None:
    factors = [fit_measurements(measure(made_up_grid(n))).rates[0].factor for n in (2, 5, 60)]
    assert factors[0] == 2
    assert factors[0] > factors[1] > factors[2]


def test_a_runtime_that_was_not_measured_is_forecast_by_the_table_and_said_so() -> None:
    calibration = fit_measurements(measure(made_up_grid(5)))
    result = forecast(make_work(target="coreml"), load_device("a18"), calibration=calibration)
    assert result.method == "roofline"
    assert any("no measurement of coreml" in note for note in result.notes)


@pytest.mark.parametrize("name", ["kirin-9020", "raspberry-pi-5"])
def test_a_calibrated_device_survives_the_way_through_its_file(name: str, tmp_path: Path) -> None:
    calibration = fit_measurements(measure(made_up_grid(6), threads=2))
    file = tmp_path / "mine.json"
    write_calibrated(load_device(name), calibration, file)
    device = load_device(str(file))
    assert parse_calibration(device) == calibration
    assert replace(device, id=name, calibration=None) == load_device(name)
    result = forecast(made_up_grid(1)[0], device)
    assert result.method == "calibrated"
    assert (result.floor_ms is None) == (load_device(name).paper_sustained_gflops is None)
    with pytest.raises(OutputError, match="already exists"):
        write_calibrated(load_device(name), calibration, file)


def test_bad_input_is_one_clear_line(tmp_path: Path, host: Device) -> None:
    case = {"runtime": "onnx", "engine": "x", "step_ms": spread(1)}
    with pytest.raises(DeviceError, match="cannot calibrate with a 'forecast', expected 'measured'"):
        fit([results(case, kind="forecast")], {HASH: {}})
    with pytest.raises(DeviceError, match=r"bundle 'panda' with manifest aaaaaaaaaaaa, which was not given"):
        fit([results(case)], {"b" * 64: {}})
    with pytest.raises(DeviceError, match="no measurement to calibrate with"):
        fit([results(partial=True)], {HASH: {}})
    with pytest.raises(DeviceError, match=r"a calibrated device is a \.json file"):
        write_calibrated(host, fit_measurements(measure(made_up_grid(1))), tmp_path / "x.toml")
    broken = tmp_path / "broken.json"
    write_calibrated(host, fit_measurements(measure(made_up_grid(1))), broken)
    text = json.loads(broken.read_text())
    newer = {**text, "calibration": {**text["calibration"], "format_version": 2, "rates": "of another kind"}}
    broken.write_text(json.dumps(newer))
    with pytest.raises(
        DeviceError, match=r"broken\.json: calibration has format_version 2, this program reads up to 1"
    ):
        load_device(str(broken))
    text["calibration"]["rates"][0]["ms_per"]["calls"] = -1
    broken.write_text(json.dumps(text))
    with pytest.raises(DeviceError, match=r"broken\.json: calibration\.rates\[0\]\.ms_per\.calls -1 is less than"):
        load_device(str(broken))
