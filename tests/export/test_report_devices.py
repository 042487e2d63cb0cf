"""What a report says of work, devices and plans: forecasts are marked, nothing measured is mixed in."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from made_up_reports import PLAN, Page, make_work, write_reports

from kind_bench.forecasting.devices import load_device
from kind_bench.results.alternatives import list_alternatives
from kind_bench.results.results import parse_results
from kind_core.errors import BundleError
from kind_core.samplers import Sampling
from kind_export.report.charts import LogAxis, draw_columns, draw_ranges, draw_roofline
from kind_export.report.collect import refresh_report
from kind_export.report.words import format_percent, format_range


def test_forecasts_are_marked_and_named(tmp_path: Path) -> None:
    report, text = write_reports(tmp_path)
    words = Page(text).text
    assert {one["kind"] for one in report["forecasts"]} == {"forecast"}
    assert "Calculated, not measured" in words
    units = [(one["device"], one["target"], one["unit"]) for one in report["forecasts"]]
    assert ("apple-a18", "coreml", "npu") in units
    assert ("apple-a18", "coreml", "gpu") in units
    assert ("apple-a18", "onnx", "cpu") in units
    assert not any(target == "coreml" for device, target, _ in units if device == "kirin-9020")


def test_a_range_holds_its_likely_value_and_the_picture_is_its_steps(tmp_path: Path) -> None:
    report, _ = write_reports(tmp_path)
    known = [one for one in report["forecasts"] if one["step"]["likely_ms"] is not None]
    assert known
    for one in known:
        for part in ("step", "picture"):
            assert one[part]["low_ms"] < one[part]["likely_ms"] < one[part]["high_ms"]
        assert one["picture"]["likely_ms"] > 3.9 * one["step"]["likely_ms"]


def test_a_chip_without_bandwidth_has_the_floor_alone_and_says_why(tmp_path: Path) -> None:
    report, text = write_reports(tmp_path, targets=("onnx",), devices=("kirin-9020",))
    (one,) = report["forecasts"]
    assert one["method"] == "floor only"
    assert one["step"]["likely_ms"] is None
    assert one["step"]["floor_ms"] > 0
    assert one["reason"]
    assert one["reason"].split(":")[0] in Page(text).text


def test_layers_are_shown_where_the_file_names_them(tmp_path: Path) -> None:
    report, text = write_reports(tmp_path)
    assert [one["name"] for one in report["work"]["onnx"]["step"]["by_layer"]] == ["blocks.0", "blocks.1"]
    assert report["work"]["executorch"]["step"]["by_layer"] == []
    assert "do not name their layers" in Page(text).text


def test_what_falls_off_the_fast_path_is_named_with_its_reason(tmp_path: Path) -> None:
    _, text = write_reports(tmp_path)
    assert "index_select on portable: no look-up of rows there" in Page(text).text


def test_a_plan_says_what_was_chosen_and_what_the_others_miss(tmp_path: Path) -> None:
    _, text = write_reports(tmp_path, plan=PLAN)
    words = " ".join(Page(text).text.split())
    assert "at most 2.00 MB and 0.50 ms a step on apple-a18" in words
    assert "int8, all ranks, 4 steps, 51.5 dB" in words
    assert "max-size 2.00 MB, needs more" in words


@pytest.mark.parametrize("model", [None, "Galaxy S24"])
def test_refresh_takes_in_what_was_measured_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str | None
) -> None:
    before, _ = write_reports(tmp_path, targets=("onnx",), devices=("a18",))
    machine = {"system": "Android 15", "processor": "SM8650"} | ({"model": model} if model else {})
    case = {
        "runtime": "onnx",
        "engine": "onnxruntime 1.22",
        "precision": "fp32",
        "step_ms": {"samples": [7.0, 8.0, 9.0]},
    }
    document = {
        "format_version": 1, "kind": "measured", "made_by": "an app", "machine": machine, "cases": [case],
        "bundle": {"name": "tiny", "manifest_sha256": "0" * 64},
        "units": [
            {"name": "NNAPI", "kind": "npu", "runtime": "onnx", "is_taken": False, "reason": "no <driver>"},
            {"name": "CPU", "kind": "cpu", "runtime": "onnx", "is_taken": True, "steps": 20, "psnr_db": 91.3},
        ],
    }  # fmt: skip
    results = parse_results(document, "phone.json")
    manifest = SimpleNamespace(sampling=Sampling(sampler="ddim", steps=4, guidance_scale=2.0))
    monkeypatch.setattr(
        "kind_export.report.collect.open_bundle", lambda path: SimpleNamespace(path=path, manifest=manifest)
    )
    monkeypatch.setattr("kind_export.report.collect.read_measured", lambda bundle: (results,))
    monkeypatch.setattr(
        "kind_export.report.collect.count_bundle", lambda bundle: {"onnx": {"step": make_work("onnx", "step")}}
    )
    after = refresh_report(tmp_path, [load_device("snapdragon-8-gen-3")])
    words = Page((tmp_path / "report.html").read_text()).text
    assert [one["device"] for one in before["forecasts"]] == ["apple-a18"]
    assert [one["device"] for one in after["forecasts"]] == ["snapdragon-8-gen-3"]
    assert after["measured_elsewhere"][0]["cases"][0]["step_ms"]["median"] == 8.0
    assert "8.0 ms" in words
    assert "no <driver>" in words
    assert "91.3" in words
    assert (model or "SM8650") in words
    assert after["targets"] == before["targets"]


def test_what_one_would_use_instead_is_shown_with_what_it_draws(tmp_path: Path) -> None:
    _, text = write_reports(tmp_path, targets=("onnx",))
    words = " ".join(Page(text).text.split()).replace("\u00a0", " ")
    assert "8 x 8 of 2 classes" in words
    for one in list_alternatives():
        assert one.name in words
        assert one.source in words
        assert one.draws in words
    assert "1.76 GB 2.70 s" in words
    assert "2.25 GB to 2.79 GB" in words


def test_refresh_refuses_a_report_of_another_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_reports(tmp_path)
    data = json.loads((tmp_path / "report.json").read_text()) | {"format_version": 99}
    (tmp_path / "report.json").write_text(json.dumps(data))
    monkeypatch.setattr("kind_export.report.collect.open_bundle", lambda path: None)
    with pytest.raises(BundleError, match="format_version 99"):
        refresh_report(tmp_path, [load_device("a18")])


def test_log_axis_holds_its_values_in_whole_decades() -> None:
    axis = LogAxis.over([0.3, 42.0], 0, 100)
    assert axis.place(0.1) == 0
    assert axis.place(100) == 100
    assert axis.place(1) < axis.place(3.2) < axis.place(10)
    assert axis.ticks() == [0.1, 1, 10, 100]
    assert axis.place(1e9) == 100  # what lies outside stays on the edge


def test_columns_are_as_high_as_their_values() -> None:
    chart = draw_columns("t", {"patch": 0, "blocks.0": 50, "blocks.1": 100}, "FLOPs")
    heights = [one["height"] for one in chart["columns"]]
    assert heights[0] == 0
    assert heights[2] == pytest.approx(2 * heights[1], rel=0.01)
    assert all(one["y"] + one["height"] == pytest.approx(chart["bottom"], abs=0.2) for one in chart["columns"])


def test_points_of_a_roofline_lie_under_its_roof(tmp_path: Path) -> None:
    report, _ = write_reports(tmp_path)
    drawn = [one for one in report["forecasts"] if draw_roofline(one) is not None]
    assert drawn
    for one in drawn:
        line = one["roofline"]
        for point in line["points"]:
            slope = (point["flops_per_byte"] or 1e9) * line["peak_bandwidth_gbs"]
            assert 0 < point["gflops"] <= min(line["peak_gflops"], slope)


def test_ranges_leave_out_what_is_unknown() -> None:
    nothing = dict.fromkeys(("floor_ms", "low_ms", "likely_ms", "high_ms"))
    entry = {"device_name": "D", "unit": "cpu", "target": "onnx", "precision": "fp32", "step": nothing}
    assert draw_ranges("t", [entry], "step") is None
    known = entry | {"step": {"floor_ms": 0.5, "low_ms": 1.0, "likely_ms": 2.0, "high_ms": 4.0}}
    chart = draw_ranges("t", [entry, known], "step")
    assert chart is not None
    (row,) = chart["rows"]
    assert row["floor"] < row["low"] < row["likely"] < row["high"]


@pytest.mark.parametrize(("share", "words"), [(0, "0 %"), (0.0123, "1.2 %"), (0.5, "50 %")])
def test_percent(share: float, words: str) -> None:
    assert format_percent(share).replace("\xa0", " ") == words


def test_range_says_the_floor_where_there_is_no_more() -> None:
    floor = {"floor_ms": 2.0, "low_ms": None, "likely_ms": None, "high_ms": None}
    assert format_range(floor).replace("\xa0", " ") == "floor 2.0 ms"
    assert format_range(dict.fromkeys(floor)) == "unknown"
