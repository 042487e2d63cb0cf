"""The commands of `kind-bench` that look things up: devices, the paper, the lint, and calibration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from made_up_results import minimal_case, minimal_results, write_json

from kind_bench.cli import main
from kind_bench.linting import lint_bundle, require_all_fast
from kind_core.errors import VerificationError
from kind_runtimes.bundle import Bundle

COMMANDS = ("run", "import", "adb", "compare", "calibrate", "devices", "lint", "paper")


def _kind_bench(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_what_it_is_for(command: str) -> None:
    result = _kind_bench(command, "-h")
    assert result.exit_code == 0
    assert result.stdout == _kind_bench(command, "--help").stdout
    assert command in _kind_bench("-h").stdout
    assert set(main.commands) == set(COMMANDS)


def test_the_paper_stands_beside_what_is_counted() -> None:
    assert "Table 1" in _kind_bench("paper").stdout
    assert json.loads(_kind_bench("paper", "--json").stdout)["kind"] == "paper"


def test_the_lint_names_what_a_delegate_leaves(small_bundle: Bundle) -> None:
    result = _kind_bench("lint", small_bundle.path, "--runtime", "executorch")
    assert result.exit_code == 0
    assert "2 x index_select on portable" in result.stdout
    strict = _kind_bench("lint", small_bundle.path, "--runtime", "executorch", "--strict", "--json")
    assert strict.exit_code == 1
    assert {one["target"] for one in json.loads(strict.stdout)["programs"]} == {"executorch"}
    assert "leaves its fast path" in strict.stderr


def test_a_lint_with_a_profile_has_shares_of_time(small_bundle: Bundle) -> None:
    linted = lint_bundle(small_bundle.path, ["onnx"], profile=True)
    assert [one.lint.basis for one in linted] == ["measured", "counted"]  # step and decode
    assert sum(share.time or 0 for share in linted[0].lint.backends) == pytest.approx(1)
    require_all_fast(linted)  # onnxruntime's CPU runs everything
    with pytest.raises(VerificationError, match="executorch: step"):
        require_all_fast(lint_bundle(small_bundle.path, ["executorch"]))


def test_devices_are_listed_and_looked_up_by_product() -> None:
    assert "apple-a18" in _kind_bench("devices").stdout
    assert _kind_bench("devices", "iphone-16").stdout.startswith("Apple A18 (apple-a18)")
    (one,) = json.loads(_kind_bench("devices", "a18", "--json").stdout)
    assert (one["id"], one["name"]) == ("apple-a18", "Apple A18")
    assert "leav" in _kind_bench("devices", "--check").stdout.lower()


def test_an_unknown_device_has_neighbours() -> None:
    result = _kind_bench("devices", "snapdragon-8-gen-33")
    assert result.exit_code == 1
    assert "unknown device 'snapdragon-8-gen-33', nearest: snapdragon-8-gen-3" in result.stderr


def test_a_device_is_calibrated_with_its_own_results(small_bundle: Bundle, tmp_path: Path) -> None:
    case = minimal_case(decode_ms={"samples": [0.5, 0.6]})
    file = write_json(tmp_path / "phone.json", minimal_results(small_bundle, cases=[case]))
    arguments = ("calibrate", file, "--bundle", small_bundle.path, "--device", "snapdragon-8-gen-3")
    output = tmp_path / "my-phone.json"
    result = _kind_bench(*arguments, "-o", output)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("onnx: 2 measurements")
    calibrated = json.loads(output.read_text())
    assert calibrated["name"] == "Snapdragon 8 Gen 3"
    assert calibrated["calibration"]["bundles"] == ["small"]
    assert _kind_bench("devices", output).exit_code == 0
    refused = _kind_bench(*arguments, "-o", output)
    assert (refused.exit_code, "--force" in refused.stderr) == (1, True)


def test_a_machine_of_no_table_has_its_own_name(small_bundle: Bundle, tmp_path: Path) -> None:
    file, output = write_json(tmp_path / "here.json", minimal_results(small_bundle)), tmp_path / "here-too.json"
    assert _kind_bench("calibrate", file, "--bundle", small_bundle.path, "-o", output).exit_code == 0
    assert json.loads(output.read_text())["form"] == "phone"
    assert json.loads(output.read_text())["name"] == "SM8650"


def test_results_of_another_bundle_or_of_two_devices_are_refused(small_bundle: Bundle, tmp_path: Path) -> None:
    other = {"name": "koala", "manifest_sha256": "1" * 64}
    one = write_json(tmp_path / "one.json", minimal_results(small_bundle))
    files = {
        "another model: koala": write_json(tmp_path / "a.json", minimal_results(small_bundle, bundle=other)),
        "2 devices: SM8650, A18": write_json(
            tmp_path / "b.json", minimal_results(small_bundle, machine={"system": "iOS 18", "processor": "A18"})
        ),
    }
    for message, file in files.items():
        result = _kind_bench("calibrate", one, file, "--bundle", small_bundle.path, "-o", tmp_path / "out.json")
        assert (result.exit_code, message in result.stderr) == (1, True), result.stderr
        assert not (tmp_path / "out.json").exists()
