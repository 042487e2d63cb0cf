"""The gate against silent fallback: an ExecuTorch step must spend its time inside the delegate; more if asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kind_bench.counting import count_program
from kind_bench.lint import MIN_RUN_MS, require_fast
from kind_core.errors import VerificationError
from kind_runtimes.documents.reports.targets import Delegation
from kind_runtimes.engine_rows import ENGINES
from kind_runtimes.manifest import TargetSpec

MIN_SHARE = 0.95


def check_delegation(folder: Path, target: TargetSpec) -> Delegation | None:
    """Measure the delegate's share of a step; raises VerificationError below 95 %, naming the slowest op left over.

    Returns the figures for `measured.json`. Other targets than ExecuTorch have no such trace: None.
    """
    if not ENGINES[target.target].has_delegates:
        return None
    from kind_bench.measure.executorch_trace import profile_delegation

    spec = target.programs["step"]
    inputs = {s.name: np.zeros(s.shape, s.dtype) for s in spec.inputs}
    profile = profile_delegation(folder / spec.file, spec, inputs)
    if profile.run_ms >= MIN_RUN_MS and profile.delegate_share < MIN_SHARE:
        op, op_ms = max(profile.portable_ms.items(), key=lambda item: item[1])
        raise VerificationError(
            f"executorch: {profile.delegate_share:.0%} of a step's time is spent in XNNPACK, expected {MIN_SHARE:.0%} "
            f"or more; {op} takes {op_ms:.2f} of {profile.run_ms:.2f} ms on a portable kernel",
            "--precision fp32 keeps the program whole",
        )
    return {
        "delegate_share": round(profile.delegate_share, 4),
        "run_ms": round(profile.run_ms, 3),
        "portable_ms": dict(profile.portable_ms),
    }


def check_strict(folder: Path, target: TargetSpec, profile: Delegation | None) -> None:
    """Raise VerificationError where a program leaves the fast path with more than a small share, as `--strict` asks.

    `profile` is what `check_delegation` gave: it has the step's time.
    """
    for name, spec in target.programs.items():
        timed = None
        if profile is not None and name == "step" and profile["portable_ms"]:
            ops = [{"op_type": op, "backend": "portable", "ms": ms} for op, ms in profile["portable_ms"].items()]
            timed = {"run_ms": profile["run_ms"], "ops": ops}
        require_fast(count_program(folder / spec.file, spec, target.target), timed)
