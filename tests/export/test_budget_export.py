"""Exports within a budget and for devices, as a user asks for them: what is chosen is exported, holds and is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kind_core.checkpoint import save_checkpoint
from kind_core.errors import BudgetError
from kind_core.files.hashing import hash_file
from kind_export import pipeline
from kind_export.budget import Budget
from kind_export.cli import main
from kind_export.request import ExportRequest
from kind_export.stages import Stage
from tiny import tiny_config, tiny_model, tiny_model_config


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    dit = tiny_config(depth=1, hidden_size=64, num_heads=4, learngene_rank=30)
    config = tiny_model_config(dit, noise_schedule="squaredcos_cap_v2", prediction_type="sample", steps=4)
    save_checkpoint(folder, config, tiny_model(dit))
    return folder


def _export(checkpoint: Path, output: Path, *options: str) -> Result:
    given = ["--classes", "panda", "--target", "onnx", "--sampler", "dpmpp", "--guidance", "2"]
    return CliRunner().invoke(main, [*given, "--checkpoint", str(checkpoint), "-o", str(output), *options])


def test_a_budget_of_size_is_met_by_the_artifact_and_explained(checkpoint: Path, tmp_path: Path) -> None:
    free = _export(checkpoint, tmp_path / "free.kind", "--json")
    assert free.exit_code == 0, free.output
    size = json.loads(free.stdout)["report"]["targets"]["onnx"]["size_bytes"]
    result = _export(checkpoint, tmp_path / "small.kind", "--max-size", f"{0.7 * size / 1e3:.1f}kB")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "small.kind" / "report.json").read_text())
    assert report["targets"]["onnx"]["size_bytes"] <= 0.7 * size
    assert report["plan"]["chosen"]["precision"] == report["targets"]["onnx"]["precision"] != "fp32"
    assert "Chosen, because it fits and comes closest to the model" in result.stdout


def test_a_named_device_is_forecast_and_an_unknown_one_refused_first(checkpoint: Path, tmp_path: Path) -> None:
    result = _export(checkpoint, tmp_path / "a.kind", "--device", "galaxy-s24")
    assert result.exit_code == 0, result.output
    assert "forecast  Snapdragon 8 Gen 3, CPU, ONNX fp32: a step" in result.stdout
    report = json.loads((tmp_path / "a.kind" / "report.json").read_text())
    assert [one["device"] for one in report["forecasts"]] == ["snapdragon-8-gen-3"]
    unknown = _export(checkpoint, tmp_path / "b.kind", "--device", "snapdragon-8-gen-33")
    assert unknown.exit_code == 1
    assert "snapdragon-8-gen-3" in unknown.stderr
    assert not (tmp_path / "b.kind").exists()
    assert "lowering" not in unknown.stderr


def test_an_impossible_budget_publishes_nothing_and_says_what_is_missing(checkpoint: Path, tmp_path: Path) -> None:
    result = _export(checkpoint, tmp_path / "c.kind", "--max-size", "2kB")
    assert result.exit_code == 1
    assert "max-size" in result.stderr
    assert "% over" in result.stderr
    assert list(tmp_path.iterdir()) == []


def _hash_step(bundle: Path) -> str:
    return hash_file(bundle / "onnx" / "step.onnx")


def test_where_an_artifact_does_not_hold_the_next_choice_is_exported(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the checkpoint is read once, and the eager model drawn with once, for both of as many steps."""
    tried: list[object] = []
    require = pipeline.require_budget

    def fail_once(budget: Budget, *rest: Any) -> None:
        tried.append(_hash_step(rest[1]))
        if len(tried) == 1:
            raise BudgetError("too large after all")
        require(budget, *rest)

    monkeypatch.setattr(pipeline, "require_budget", fail_once)
    request = ExportRequest(
        classes=("panda",), targets=("onnx",), checkpoint=checkpoint, output=tmp_path / "d.kind", sampler="dpmpp",
        guidance=2.0, budget=Budget(max_size_bytes=10**9),
    )  # fmt: skip
    stages: list[Stage] = []
    result = pipeline.export_bundle(request, stages.append)
    assert len(tried) == 2
    assert [one.number for one in stages] == list(range(1, len(stages) + 1))
    failed = next(index for index, one in enumerate(stages) if "does not hold" in one)
    assert len({one.total for one in stages[:failed]}) == 1  # all that was expected came
    assert {one.total for one in stages[failed:]} == {len(stages)}
    assert any("does not hold: too large after all" in stage for stage in stages)
    assert _hash_step(result.path) == tried[1]
    assert stages.count("composing and rewriting") == 2
    assert [stages.count(one) for one in ("reading the checkpoint", "running the eager model")] == [1, 1]
