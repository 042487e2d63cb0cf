"""The commands of `kind-bench` that look things up: the paper and the lint."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from kind_core.errors import VerificationError
from kind_runtimes.bench.linting import lint_bundle, require_all_fast
from kind_runtimes.bench_cli import main
from kind_runtimes.bundle import Bundle

COMMANDS = ("run", "import", "adb", "compare", "lint", "paper")


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
    assert "table 1" in _kind_bench("paper").stdout
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
