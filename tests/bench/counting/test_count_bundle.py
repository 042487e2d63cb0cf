"""Counting a whole bundle: every program of every target, and files that are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kind_bench.counting import count_bundle, count_program
from kind_core.errors import BundleError
from kind_runtimes.bundle import Bundle


def test_every_program_of_every_target(small_bundle: Bundle) -> None:
    works = count_bundle(small_bundle)
    assert set(works) == {"coreml", "onnx", "executorch"}
    assert all(set(programs) == {"step", "decode"} for programs in works.values())
    # the step mixes three channels of 256 pixels, looks up a share and a picture; decoding multiplies nothing
    assert {work["step"].flops() for work in works.values()} == {2 * 256 * 3 * 3}
    assert {work["decode"].flops() for work in works.values()} == {0}
    for work in (programs["step"] for programs in works.values()):
        assert sum(op.op_class == "lookup" for op in work.ops) == 2
        assert work.weight_bytes > 0


def test_what_xnnpack_leaves_has_a_reason(small_bundle: Bundle) -> None:
    work = count_bundle(small_bundle)["executorch"]["step"]
    assert work.num_delegates >= 1
    left = [op for op in work.ops if op.backend == "portable" and op.op_type != "et_view"]
    assert left
    assert all(op.obstacle for op in left)
    assert {op.obstacle for op in left if op.op_class == "lookup"} == {"XNNPACK has no look-up of rows"}
    assert not any(op.obstacle for op in work.ops if op.backend == "XNNPACK")


def test_broken_programs_and_unknown_methods_are_named(small_bundle: Bundle, tmp_path: Path) -> None:
    spec = small_bundle.manifest.targets["executorch"].programs["step"]
    broken = tmp_path / "broken.pte"
    broken.write_bytes(b"\0" * 64)
    with pytest.raises(BundleError, match=r"broken\.pte is not an ExecuTorch program"):
        count_program(broken, spec, "executorch")
    with pytest.raises(BundleError, match="has no method 'other', expected one of forward"):
        count_program(small_bundle.path / spec.file, replace(spec, function="other"), "executorch")
