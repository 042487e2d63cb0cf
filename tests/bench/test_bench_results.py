"""Results files: what is read, completed and refused."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from made_up_results import STEP_MS, made_up_units, minimal_case, minimal_results, write_json

from kind_bench.cli import main
from kind_bench.results.importing import import_results, read_measured
from kind_bench.results.results import Spread, parse_results, read_results, round_ms
from kind_core.errors import ResultsError
from kind_runtimes.bundle import Bundle, list_files, open_bundle
from small_bundles import STEPS, write_manifest

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def bundle(placeholders: Path) -> Bundle:
    return open_bundle(placeholders)


def test_spread_has_the_quartiles_of_numpy() -> None:
    samples = np.random.default_rng(0).exponential(size=17)
    spread = Spread(samples=tuple(samples))
    q1, median, q3 = np.percentile(samples, [25, 50, 75])
    assert (*spread.quartiles, spread.median) == pytest.approx((q1, q3, median))
    assert Spread(samples=(3.0,)).quartiles == (3.0, 3.0)


@pytest.mark.parametrize("ms", [1e-6, 0.0123456, 0.99999, 1.23456, 12345.678949])
def test_rounding_keeps_five_digits(ms: float) -> None:
    assert 0 < round_ms(ms) == pytest.approx(ms, rel=1e-4)


def test_what_an_app_must_write_is_completed(bundle: Bundle, tmp_path: Path) -> None:
    case = minimal_case(decode_ms={"samples": [2.0, 1.0, 3.0]}, battery="87 %")
    file = write_json(tmp_path / "phone.json", minimal_results(bundle, cases=[case]))
    results, place = import_results(file, bundle.path)
    entry = results.data["cases"][0]
    assert entry["step_ms"] == {
        "samples": list(STEP_MS), "median": 6.0, "q1": 5.0, "q3": 7.0, "min": 4.0, "max": 8.0,
    }  # fmt: skip
    assert entry["image_ms"] == STEPS * 6.0 + 2.0 == results.cases[0].image_ms
    assert entry["precision"] == "fp32"
    assert entry["battery"] == "87 %"
    assert set(results.data["bundle"]["files"]) == {"onnx/step.onnx", "onnx/decode.onnx"}
    assert results.data["partial"] is False
    assert read_results(place).data == results.data


def test_steps_without_guidance_count_in_a_picture(placeholders: Path, tmp_path: Path) -> None:
    write_manifest(placeholders, ["onnx"], guided_steps=[1])
    bundle = open_bundle(placeholders)
    case = minimal_case(decode_ms={"samples": [1.0]})
    without = import_results(write_json(tmp_path / "a.json", minimal_results(bundle, cases=[case])), placeholders)[0]
    assert without.cases[0].image_ms is None  # the other steps were not measured
    case["step_unguided_ms"] = {"samples": [3.0]}
    whole = import_results(write_json(tmp_path / "b.json", minimal_results(bundle, cases=[case])), placeholders)[0]
    assert whole.cases[0].image_ms == 6.0 + (STEPS - 1) * 3.0 + 1.0


def test_imported_results_are_kept_beside_the_hashed_files(bundle: Bundle, tmp_path: Path) -> None:
    file = write_json(tmp_path / "phone.json", minimal_results(bundle))
    _, place = import_results(file, bundle.path)
    assert import_results(file, bundle.path)[1] == place
    assert import_results(place, bundle.path)[1] == place
    assert place.name.startswith("sm8650-")
    assert list((bundle.path / "measured").iterdir()) == [place]
    assert list_files(bundle.path) == sorted(open_bundle(bundle.path).manifest.files)
    assert [results.data for results in read_measured(bundle)] == [json.loads(place.read_text())]


def test_another_bundle_s_results_are_not_read_with_it(bundle: Bundle, tmp_path: Path) -> None:
    import_results(write_json(tmp_path / "phone.json", minimal_results(bundle)), bundle.path)
    other = Path(shutil.copytree(bundle.path, tmp_path / "other.kind"))
    write_manifest(other, ["onnx"])
    with pytest.raises(ResultsError, match="another model"):
        read_measured(open_bundle(other))


def _set(*path: str | int, value: object) -> Change:
    def change(data: dict[str, Any]) -> None:
        inner: Any = data
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("bundle", "manifest_sha256", value="ab" * 32), r"another model: small with .* abababababab"),
        (_set("bundle", "files", value={"onnx/step.onnx": "cd" * 32}), r"onnx/step.onnx with sha256 cdcdcdcdcdcd"),
        (_set("bundle", "files", value={"onnx/other.onnx": "cd" * 32}), "has no such file"),
        (_set("bundle", "manifest_sha256", value="short"), r"\$\.bundle\.manifest_sha256 'short' does not match"),
        (_set("format_version", value=2), "format_version 2, this program reads up to 1"),
        (_set("kind", value="forecast"), "no measured results: its kind is 'forecast'"),
        (_set("cases", 0, "runtime", value="tflite"), "'tflite' is not one of"),
        (_set("cases", 0, "precision", value="int8"), "measured onnx in int8, in .* it is fp32"),
        (_set("cases", 0, "step_ms", "samples", value=[]), r"step_ms\.samples \[\] should be non-empty"),
        (_set("cases", 0, "step_ms", "samples", value=[1.0, -1.0]), "-1.0 is less than or equal to the minimum of 0"),
        (_set("cases", 0, "step_ms", "samples", value=[float("nan")]), "NaN is no JSON number"),
        (_set("cases", 0, "step_ms", "median", value=0.006), "says its median is 0.006 ms, its samples have 6"),
        (_set("cases", value=[]), "holds no case"),
        (_set("machine", value={"system": "iOS 18"}), "'processor' is a required property"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_nothing_kept(
    bundle: Bundle, tmp_path: Path, change: Change, message: str
) -> None:
    data = minimal_results(bundle)
    change(data)
    with pytest.raises(ResultsError, match=message):
        import_results(write_json(tmp_path / "phone.json", data), bundle.path)
    assert not (bundle.path / "measured").exists()


def test_a_target_that_the_bundle_lacks_is_refused(placeholders: Path, tmp_path: Path) -> None:
    write_manifest(placeholders, ["onnx"])
    data = minimal_results(open_bundle(placeholders), cases=[minimal_case(runtime="executorch")])
    with pytest.raises(ResultsError, match=r"measured executorch, .* holds only onnx"):
        import_results(write_json(tmp_path / "phone.json", data), placeholders)


@pytest.mark.parametrize("content", [None, "{", "[]", '"measured"', "{}"])
def test_what_is_no_results_file_is_named_plainly(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "phone.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ResultsError, match=r"phone\.json"):
        read_results(file)


def test_compute_units_are_kept_and_shown(bundle: Bundle, tmp_path: Path) -> None:
    data = minimal_results(bundle, units=made_up_units(), cases=[])
    file = write_json(tmp_path / "phone.json", data)
    result = CliRunner().invoke(main, ["import", str(file), "--bundle", str(bundle.path)])
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [
        "QNN-GPU",
        "(GPU)",
        "12.3",
        "dB",
        "120",
        "ms",
        "first",
        "load",
        "refused",
        "latents",
        "of",
        "12.3",
        "dB",
    ] in lines
    assert ["CPU", "(CPU)", "91.0", "dB", "120", "ms", "first", "load", "draws"] in lines
    (kept,) = read_measured(bundle)
    assert list(kept.units) == made_up_units()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("units", value=[{"name": "CPU"}]), "'kind' is a required property"),
        (_set("units", value=[{**made_up_units()[2], "kind": "tpu"}]), "'tpu' is not one of"),
        (_set("units", value=[{**made_up_units()[2], "runtime": "another"}]), "measured another, .* holds only"),
    ],
)
def test_compute_units_that_do_not_fit_are_refused(
    bundle: Bundle, tmp_path: Path, change: Change, message: str
) -> None:
    data = minimal_results(bundle)
    change(data)
    with pytest.raises(ResultsError, match=message):
        import_results(write_json(tmp_path / "phone.json", data), bundle.path)


def test_an_interrupted_measurement_may_have_no_case(bundle: Bundle) -> None:
    assert parse_results(minimal_results(bundle, cases=[], partial=True), "a").partial


def test_the_command_says_where_the_results_went(bundle: Bundle, tmp_path: Path) -> None:
    file = write_json(tmp_path / "phone.json", minimal_results(bundle))
    result = CliRunner().invoke(main, ["import", str(file), "--bundle", str(bundle.path)])
    assert result.exit_code == 0
    assert "SM8650, Android 15" in result.stdout
    assert f"6 ms, half of {len(STEP_MS)} within 5 ms to 7 ms" in result.stdout
    assert result.stderr.startswith(f"kept as {bundle.path / 'measured'}")
    assert statistics.median(STEP_MS) == 6.0
