"""A target registered by its rows alone is exported, verified, counted, linted, measured and reported as any other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import toy_target
from kind_bench.linting import lint_bundle
from kind_core.checkpoint import save_checkpoint
from kind_export.cli import main
from kind_export.target_rows import TARGET_ROWS
from kind_runtimes.bundle import open_bundle
from kind_runtimes.engine_rows import ENGINES
from kind_runtimes.manifest import load_schema
from tiny import tiny_config, tiny_model, tiny_model_config


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(TARGET_ROWS, "toy", toy_target.ROW)
    monkeypatch.setitem(ENGINES, "toy", toy_target.ENGINE)
    load_schema.cache_clear()
    yield
    load_schema.cache_clear()


@pytest.mark.usefixtures("registered")
def test_a_registered_target_goes_all_the_way(tmp_path: Path) -> None:
    dit = tiny_config(num_classes=2)
    config = tiny_model_config(dit, noise_schedule="squaredcos_cap_v2", prediction_type="sample", sampler="dpmpp")
    save_checkpoint(tmp_path / "model", config, tiny_model(dit))
    output = tmp_path / "panda.kind"
    arguments = ["--classes", config.classes[0].id, "--target", "toy", "--checkpoint", str(tmp_path / "model")]
    done = CliRunner().invoke(main, [*arguments, "--steps", "3", "--strict", "-o", str(output)])
    assert done.exit_code == 0, done.output
    manifest = open_bundle(output).manifest
    assert manifest.targets["toy"].programs["step"].file == "toy/step.toy"
    parity = manifest.data["targets"]["toy"]["parity"]
    assert parity["trajectory_psnr_db"] > parity["threshold_db"] == 60
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    assert report["targets"]["toy"]["measured"]["step_ms"] > 0
    assert {one["target"] for one in report["forecasts"]} == {"toy"}
    assert "Toy" in (output / "report.html").read_text(encoding="utf-8")
    assert {one.work.target for one in lint_bundle(output)} == {"toy"}
    drawn = CliRunner().invoke(main, ["--classes", "x", "--target", "tot"])
    assert "toy" in drawn.output
