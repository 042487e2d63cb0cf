"""Fewer bits that fall short of the gate: the layers to blame are kept higher, or the error names them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kind_core.checkpoint import save_checkpoint
from kind_core.errors import VerificationError
from kind_core.precisions import PRECISIONS, PrecisionName
from kind_export.pipeline import ExportResult, export_bundle
from kind_export.request import ExportRequest
from kind_export.stages import Stage
from kind_export.verify import lower_within_gate as precision
from tiny import tiny_config, tiny_model, tiny_model_config

pytestmark = pytest.mark.slow
SHORTFALL_DB = 3.0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough that its factors are worth quantising."""
    path = tmp_path_factory.mktemp("gate") / "model"
    dit = tiny_config(num_classes=2, depth=1, hidden_size=128, learngene_rank=32)
    config = tiny_model_config(dit, noise_schedule="squaredcos_cap_v2", prediction_type="sample", sampler="dpmpp")
    save_checkpoint(path, config, tiny_model(dit))
    return path


@pytest.fixture
def stages() -> list[str]:
    """What an export said that it does."""
    return []


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The costs of the layers as an export measured them."""
    costs: dict[str, float] = {}

    def measure(*given: Any) -> dict[str, float]:
        costs.update(measure_costs(*given))
        return costs

    measure_costs = precision.measure_costs
    monkeypatch.setattr(precision, "measure_costs", measure)
    return costs


@pytest.fixture
def export(checkpoint: Path, tmp_path: Path, stages: list[str]) -> Callable[..., ExportResult]:
    def run(asked: PrecisionName, name: str = "out", classes: Sequence[str] = ("giant panda",)) -> ExportResult:
        output = tmp_path / "bundles" / f"{name}.kind"
        request = ExportRequest(
            classes=tuple(classes), targets=("onnx",), checkpoint=checkpoint, output=output, steps=3, guidance=2.0,
            precision=asked,
        )  # fmt: skip
        return export_bundle(request, stages.append)

    return run


def _set_gates(monkeypatch: pytest.MonkeyPatch, asked: PrecisionName, *thresholds_db: float) -> None:
    """Trajectory, step and update, in dB."""
    names = ("trajectory_db", "step_db", "update_db")
    gates = dict(zip(names, thresholds_db, strict=True))
    monkeypatch.setitem(PRECISIONS, asked, replace(PRECISIONS[asked], **gates))


def _quantization(result: ExportResult) -> dict[str, Any]:
    facts: dict[str, Any] = result.manifest.data["targets"]["onnx"]["lowering"]["step"]["quantization"]
    return facts


@pytest.mark.parametrize("asked", ["int8", "int4"])
def test_most_costly_layers_are_kept_until_the_gate_is_met(
    asked: PrecisionName, export: Callable[..., ExportResult], measured: dict[str, float], stages: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    _set_gates(monkeypatch, asked, -100, -100, -100)
    plain = export(asked, "plain")
    assert (_quantization(plain)["kept"], measured) == ([], {})
    needed_db = plain.parities["onnx"].trajectory_psnr_db + SHORTFALL_DB
    _set_gates(monkeypatch, asked, needed_db, -100, -100)
    stages.clear()
    result = export(asked)
    facts = _quantization(result)
    assert facts["kept"]
    assert set(facts["kept"]) == set(list(measured)[: len(facts["kept"])])
    assert list(measured.values()) == sorted(measured.values(), reverse=True)
    assert facts["num_layers"] == len(measured) - len(facts["kept"])
    assert result.parities["onnx"].trajectory_psnr_db >= needed_db == result.parities["onnx"].threshold_db
    assert stages.count(f"finding what {asked} costs") == 1
    assert stages.count("lowering step to onnx") == stages.count("verifying onnx") >= 2


def test_impossible_gate_names_the_layers_to_blame(
    export: Callable[..., ExportResult], measured: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _set_gates(monkeypatch, "int8", 150, -100, -100)
    with pytest.raises(VerificationError, match="most of the noise comes from") as caught:
        export("int8")
    named = caught.value.message.partition("most of the noise comes from ")[2]
    assert [part.partition(" (")[0] for part in named.split(", ")] == list(measured)[:4]
    assert "trajectory of class 'giant panda'" in caught.value.message
    assert "\n" not in caught.value.message
    assert not list((tmp_path / "bundles").iterdir())


def test_fp32_is_lowered_once(
    export: Callable[..., ExportResult], measured: dict[str, float], stages: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    _set_gates(monkeypatch, "fp32", 199, -100, -100)
    with pytest.raises(VerificationError) as caught:
        export("fp32")
    assert "most of the noise" not in caught.value.message
    assert measured == {}
    assert stages.count("lowering step to onnx") == 1
    assert not list((tmp_path / "bundles").iterdir())


def test_the_stages_that_come_are_known_from_the_start(
    export: Callable[..., ExportResult], stages: list[Stage]
) -> None:
    export("fp32")
    assert [(one.number, one.total) for one in stages] == [(i + 1, len(stages)) for i in range(len(stages))]


def test_layers_are_measured_on_several_classes(
    export: Callable[..., ExportResult], measured: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[int]] = []
    calibrate = precision._calibrate

    def spy(lowering: Any, *rest: Any) -> Any:
        calls = calibrate(lowering, *rest)
        place = [spec.name for spec in lowering.inputs].index("class_index")
        seen.append({int(call[place]) for call in calls})
        return calls

    monkeypatch.setattr(precision, "_calibrate", spy)
    _set_gates(monkeypatch, "int8", 150, -100, -100)
    with pytest.raises(VerificationError, match="most of the noise"):
        export("int8", classes=("giant panda", "red panda"))
    assert seen == [{0, 1}]
    assert measured
