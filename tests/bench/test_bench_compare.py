"""Two files held against each other, as an app's CI does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from made_up_results import minimal_case, minimal_results, write_json

from kind_bench.cli import main
from kind_bench.results.compare import GROUPS, compare_files, parse_limit
from kind_core.errors import ConfigError, ResultsError
from kind_runtimes.bundle import Bundle, open_bundle


@pytest.fixture
def bundle(placeholders: Path) -> Bundle:
    return open_bundle(placeholders)


def _results(bundle: Bundle, factor: float = 1.0, /, **changes: Any) -> dict[str, Any]:
    case = minimal_case(
        step_ms={"samples": [10 * factor]}, image_ms=200 * factor, peak_memory_bytes=round(1e8 * factor)
    )
    return minimal_results(bundle, cases=[case], **changes)


def _report(**changes: Any) -> dict[str, Any]:
    """A report with the fields that a comparison reads, and what the schema wants besides."""
    count = {"dense_twin": 9, "composed": 5}
    report: dict[str, Any] = {
        "format_version": 2, "name": "panda", "classes": [{"id": "n1", "names": ["panda"]}],
        "latents_shape": [1, 3, 8, 8],
        "sampling": {"sampler": "ddim", "steps": 4, "guidance_scale": 1.5, "passes_per_step": 2,
                     "initial_noise_scale": 1.0, "guided_steps": [0, 1, 2, 3]},
        "model": {
            "num_tokens": 16, "live_rank": 4, "parameters": {**count, "stored_in_step": 1000},
            "conditioning": {"stored": 1, "replaces": 2}, "flops_per_pass": {"paper": count, "full": count},
            "matrices_of_a_block": {"out": {"form": "dense", "joined": 1, "shape": [4, 4], "live_rank": 4,
                                            "products_per_token": None}},
            "flops_per_step_executed": 1_000_000,
        },
        "packs": [], "rewrites": {"conditioning": {}}, "tools": {}, "source": {"checkpoint_sha256": "0" * 64},
        "host": {"system": "Linux", "processor": "A Processor", "num_cpus": 2},
        "targets": {"onnx": {
            "precision": "fp32", "size_bytes": 4_000_000, "lowering": {}, "delegation": None,
            "programs": {"step": {"file": "onnx/step.onnx", "inputs": [], "outputs": [], "size_bytes": 4_000_000}},
            "parity": {"verified_by": "onnxruntime", "threshold_db": 60, "trajectory_psnr_db": 80.0,
                       "step_threshold_db": 70, "step_psnr_db": 100.0, "decode_threshold_db": 60,
                       "decode_psnr_db": 200},
            "measured": {"runtime": "onnx", "engine": "onnxruntime", "step_ms": 5.0, "step_min_ms": 4.0,
                         "step_max_ms": 6.0, "image_ms": 20.0, "load_ms": 30.0, "repeats": 15},
        }},
        "forecasts": [], "measured_elsewhere": [], "plan": None,
        "work": {"onnx": {"step": {
            "flops": {"full": 1_000_000, "paper": 900_000}, "bytes_moved": 5_000_000, "weight_bytes": 3_900_000,
            "peak_activation_bytes": 600_000, "num_ops": 10, "num_delegates": 0, "by_layer": [],
            "by_class": [{"name": "linear", "num_ops": 10, "flops": 1, "bytes_moved": 1, "weight_bytes": 1}],
            "delegation": {"basis": "counted", "backends": [], "classes": [], "findings": []},
        }}},
    }  # fmt: skip
    return {**report, **changes}


def _changed(report: dict[str, Any], value: object, *path: str) -> dict[str, Any]:
    copy = json.loads(json.dumps(report))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


def _compare(tmp_path: Path, before: dict[str, Any], after: dict[str, Any], *arguments: str) -> Any:
    files = [write_json(tmp_path / f"{name}.json", data) for name, data in (("before", before), ("after", after))]
    return CliRunner().invoke(main, ["compare", *map(str, files), *arguments])


@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (1.04, 0), (1.06, 1), (0.5, 0)])
def test_only_changes_for_the_worse_fail(bundle: Bundle, tmp_path: Path, factor: float, code: int) -> None:
    result = _compare(tmp_path, _results(bundle), _results(bundle, factor), "--fail-over", "5%")
    assert result.exit_code == code
    assert ("worse by more than 5%: onnx: step, onnx: picture, onnx: peak memory" in result.stderr) == bool(code)


def test_without_a_limit_nothing_fails(bundle: Bundle, tmp_path: Path) -> None:
    result = _compare(tmp_path, _results(bundle), _results(bundle, 3))
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["before", "after", "change"],
        ["onnx:", "step", "10", "ms", "30", "ms", "+200.0%"],
        ["onnx:", "picture", "200", "ms", "600", "ms", "+200.0%"],
        ["onnx:", "peak", "memory", "100.000", "MB", "300.000", "MB", "+200.0%"],
    ]


@pytest.mark.parametrize(
    ("path", "value", "name", "group"),
    [
        (("targets", "onnx", "size_bytes"), 5_000_000, "onnx size", "size"),
        (("model", "parameters", "stored_in_step"), 2000, "numbers stored in step", "size"),
        (("model", "flops_per_step_executed"), 2_000_000, "FLOPs of a step", "flops"),
        (("targets", "onnx", "parity", "trajectory_psnr_db"), 60.0, "onnx parity of the trajectory", "parity"),
        (("targets", "onnx", "parity", "step_psnr_db"), 60.0, "onnx parity of a step", "parity"),
        (("targets", "onnx", "measured", "step_ms"), 6.0, "onnx step, measured", "latency"),
        (("targets", "onnx", "measured", "image_ms"), 60.0, "onnx picture, measured", "latency"),
        (("targets", "onnx", "measured", "load_ms"), 60.0, "onnx load, measured", "latency"),
        (("work", "onnx", "step", "flops", "full"), 2_000_000, "onnx step FLOPs", "flops"),
        (("work", "onnx", "step", "weight_bytes"), 6_000_000, "onnx step weights", "size"),
        (("work", "onnx", "step", "peak_activation_bytes"), 700_000, "onnx step peak activations", "memory"),
        (("work", "onnx", "step", "bytes_moved"), 6_000_000, "onnx step bytes moved", "memory"),
    ],
)
def test_every_figure_of_a_report_is_guarded(
    tmp_path: Path, path: tuple[str, ...], value: float, name: str, group: str
) -> None:
    worse = _changed(_report(), value, *path)
    result = _compare(tmp_path, _report(), worse, "--fail-over", "10", "--json")
    assert result.exit_code == 1
    assert [change["name"] for change in json.loads(result.stdout)["changes"] if change["failed"]] == [name]
    assert _compare(tmp_path, worse, _report(), "--fail-over", "10").exit_code == 0  # the other way it is better
    others = [one for one in GROUPS if one != group]
    assert _compare(tmp_path, _report(), worse, "--fail-over", "10", "--only", ",".join(others)).exit_code == 0


def test_a_figure_that_is_gone_fails(tmp_path: Path) -> None:
    unmeasured = _changed(_report(), None, "targets", "onnx", "measured")
    result = _compare(tmp_path, _report(), unmeasured, "--fail-over", "5%")
    assert result.exit_code == 1
    assert "gone" in result.stdout
    assert _compare(tmp_path, _report(), unmeasured, "--fail-over", "5%", "--only", "size,flops,parity").exit_code == 0
    assert _compare(tmp_path, unmeasured, _report(), "--fail-over", "5%").exit_code == 0


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"source": {"checkpoint_sha256": "1" * 64}}, "different models: checkpoint 000000000000 and 111111111111"),
        ({"classes": [{"id": "n2", "names": ["koala"]}]}, "different classes: panda and koala"),
        ({"host": {"system": "Linux", "processor": "B", "num_cpus": 2}}, "measured on different machines"),
        ({"sampling": {**_report()["sampling"], "steps": 8}}, "different sampling: ddim with 4 steps and ddim with 8"),
        ({"sampling": {**_report()["sampling"], "steps": 1}}, "4 steps and ddim with 1 step\n"),
    ],
)  # fmt: skip
def test_what_makes_reports_unlike_is_said(tmp_path: Path, changes: dict[str, Any], note: str) -> None:
    assert note in _compare(tmp_path, _report(), _report(**changes)).stdout
    assert "note" not in _compare(tmp_path, _report(), _report()).stdout


def test_what_makes_results_unlike_is_said(bundle: Bundle, tmp_path: Path) -> None:
    other = {"bundle": {"name": "koala", "manifest_sha256": "1" * 64}, "partial": True}
    text = _compare(tmp_path, _results(bundle), _results(bundle, **other)).stdout
    assert "note: different models: small (" in text
    assert "koala (111111111111...)" in text
    assert "note: the second file is partial" in text


def test_files_of_two_kinds_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    result = _compare(tmp_path, _report(), _results(bundle))
    assert result.exit_code == 1
    assert "are a report and results, which have no figures in common" in result.stderr


@pytest.mark.parametrize(
    ("data", "message"),
    [({}, "neither a report nor"), (_report(format_version=99), "format_version 99"), (_report(host={}), "'system'")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, data: dict[str, Any], message: str) -> None:
    good, bad = write_json(tmp_path / "good.json", _report()), write_json(tmp_path / "bad.json", data)
    with pytest.raises(ResultsError, match=rf"bad\.json.*{message}"):
        compare_files(good, bad)
    with pytest.raises(ResultsError, match="there is no file"):
        compare_files(tmp_path / "nothing.json", good)


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf%", ""])
def test_a_limit_is_a_number_of_percent(text: str) -> None:
    with pytest.raises(ConfigError, match="fail-over"):
        parse_limit(text)
    assert parse_limit("5%") == parse_limit("5") == 0.05


def test_an_unknown_group_is_named(bundle: Bundle, tmp_path: Path) -> None:
    result = _compare(tmp_path, _results(bundle), _results(bundle), "--only", "speed")
    assert (result.exit_code, "unknown group of figures 'speed'" in result.stderr) == (1, True)
