"""The lint: what falls off the fast path is named with its reason and its share."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from kind_bench.counting.work import OpWork, ProgramWork
from kind_bench.lint import lint, lint_program, print_lint, require_fast
from kind_core.errors import VerificationError


def _op(op_type: str, backend: str = "XNNPACK", **fields: Any) -> OpWork:
    defaults = {"op_class": "linear", "precision": "fp32", "flops": 0, "activation_bytes": 100}
    return OpWork(name=op_type, op_type=op_type, backend=backend, **defaults | fields)


def _work(*ops: OpWork, target: str = "executorch") -> ProgramWork:
    return ProgramWork(
        target=target, program="step", ops=ops, weight_bytes=0, peak_activation_bytes=0, num_delegates=2
    )  # fmt: skip


SELECT = _op("index_select", "portable", op_class="lookup", activation_bytes=50, obstacle="XNNPACK has no look-up")
NORM = _op("native_layer_norm", "portable", op_class="norm", obstacle="no operator")
WHOLE = (*(_op("XNNFullyConnected", flops=1000, activation_bytes=2000) for _ in range(2)), SELECT)
PROFILE = {
    "run_ms": 10.0,
    "ops": [
        {"op_type": "delegate", "backend": "XNNPACK", "ms": 8.0},
        {"op_type": "native_layer_norm", "backend": "portable", "ms": 1.5},
        {"op_type": "index_select", "backend": "portable", "ms": 0.5},
    ],
}


def test_a_finding_has_reason_and_shares() -> None:
    work = _work(*WHOLE, NORM, NORM)
    norm, select = lint_program(work)
    assert (norm.op_type, norm.num_ops, norm.reason) == ("native_layer_norm", 2, "no operator")
    assert norm.share == norm.bytes_share == pytest.approx(200 / 4250)
    assert select.flops_share == 0
    assert select.describe() == "1 x index_select on portable: XNNPACK has no look-up (1.2% of the bytes)"


def test_measured_time_decides_where_there_is_a_profile() -> None:
    work = _work(*WHOLE, NORM, NORM)
    assert [finding.share for finding in lint_program(work, PROFILE)] == [pytest.approx(0.15), pytest.approx(0.05)]
    short = {**PROFILE, "run_ms": 1.0}  # too short a run says nothing
    assert all(finding.time_share is None for finding in lint_program(work, short))


def test_core_ml_is_measured_wherever_it_ran_outside_the_neural_engine() -> None:
    """The rules cannot name the unit that Core ML takes instead, so the share was nothing and `--strict` passed all."""
    gather = _op("gather", "CPU or GPU (by rule)", op_class="lookup", obstacle="an index known at run time only")
    work = _work(_op("linear", "Neural Engine (by rule)", flops=1000), gather, target="coreml")
    ops = [("linear", "Neural Engine", 6.0), ("gather", "CPU", 3.0), ("gather", "Neural Engine", 1.0)]
    profile = {"run_ms": 10.0, "ops": [{"op_type": a, "backend": b, "ms": ms} for a, b, ms in ops]}
    (finding,) = lint_program(work, profile)
    assert finding.time_share == pytest.approx(0.3)
    with pytest.raises(VerificationError, match=r"30\.0% of the time"):
        require_fast(work, profile)
    times = {share.name: share.time for share in lint(work, profile).backends}
    assert times["Neural Engine"] == pytest.approx(0.7)
    assert times["Neural Engine (by rule)"] is None


def test_a_class_whose_operators_bear_another_name_in_the_trace_is_not_said_to_take_no_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    product = _op("XNNBatchMatrixMultiply", op_class="attention", flops=100)
    found = lint(_work(*WHOLE, product), PROFILE)
    times = {share.name: share.time for share in found.classes}
    assert times["attention"] is None
    assert times["lookup"] == pytest.approx(0.05)
    print_lint([found])
    assert re.search(r"^  attention .* -$", capsys.readouterr().out, re.MULTILINE)


def test_strict_refuses_more_than_a_small_share() -> None:
    require_fast(_work(*WHOLE, NORM, NORM))
    with pytest.raises(VerificationError, match=r"3 x native_layer_norm on portable: no operator \(6.9% of the bytes"):
        require_fast(_work(*WHOLE, NORM, NORM, NORM))
    with pytest.raises(VerificationError, match=r"native_layer_norm .*15\.0% of the time\), expected 5% or less"):
        require_fast(_work(*WHOLE, NORM), PROFILE)


def test_shares_of_backends_and_classes_add_up() -> None:
    whole = lint(_work(*WHOLE, NORM), PROFILE)
    assert whole.basis == "measured"
    for shares in (whole.backends, whole.classes):
        for field in ("ops", "flops", "bytes", "time"):
            assert sum(getattr(share, field) or 0.0 for share in shares) == pytest.approx(1.0)
    by_name = {share.name: share for share in whole.backends}
    assert by_name["XNNPACK"].time == pytest.approx(0.8)
    assert by_name["portable"].num_ops == 2


def test_equal_operators_are_counted_each() -> None:
    assert {share.name: share.num_ops for share in lint(_work(*WHOLE)).backends} == {"XNNPACK": 2, "portable": 1}


def test_core_ml_without_a_device_is_by_rule(capsys: pytest.CaptureFixture[str]) -> None:
    one = lint(_work(*WHOLE, target="coreml"))
    assert one.basis == "by rule, not measured"
    print_lint([one])
    text = capsys.readouterr().out
    assert "coreml step (by rule, not measured)" in text
    assert "index_select" in text
    print_lint([one], as_json=True)
    (program,) = json.loads(capsys.readouterr().out)["programs"]
    assert program["findings"][0]["op_type"] == "index_select"


def test_of_litert_the_nodes_are_counted_that_a_gpu_takes(capsys: pytest.CaptureFixture[str]) -> None:
    one = lint(_work(*WHOLE, target="litert"))
    assert (one.num_free, one.num_ops, one.basis) == (2, 3, "by rule, not measured")
    print_lint([one])
    assert "  2 of 3 nodes free of what LiteRT's GPU delegate cannot take\n" in capsys.readouterr().out
