"""Delegation lint: what of a program runs outside the backend that makes it fast, why, and how much that is.

ONNX: onnxruntime's CPU provider runs everything. ExecuTorch: XNNPACK, and portable kernels for what its partitioner
left out. Core ML decides on the device; without a profile from one, the rules of `counting.mil_program` stand in.
LiteRT runs everything on a CPU; what its GPU delegate takes are the rules of `counting.litert_gpu`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kind_bench.counting.work import OpWork, ProgramWork
from kind_core.console import echo, echo_lines
from kind_core.errors import VerificationError
from kind_runtimes.engine_rows import ENGINES

Profile = Mapping[str, Any]  # of a results file: run_ms, and ops with op_type, backend and ms
MAX_SHARE = (
    0.05  # of a program, by time or else by FLOPs or bytes, that one kind of operator may take off the fast path
)
_FAST_UNIT = "Neural Engine"  # as a profile of Core ML calls it; what the rules say is no name of a unit
MIN_RUN_MS = 2.0  # in shorter runs the look-ups before a delegate weigh too much to say anything


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Operators of one type that fall off the fast path for one reason. Shares are of the program, from 0 to 1."""

    op_type: str
    backend: str
    reason: str
    num_ops: int
    flops_share: float
    bytes_share: float
    time_share: float | None

    @property
    def share(self) -> float:
        """Of the time where it was measured, else of FLOPs or bytes, whichever is more."""
        return max(self.flops_share, self.bytes_share) if self.time_share is None else self.time_share

    def describe(self) -> str:
        """In a line: `3 x index_select on portable: XNNPACK has no look-up of rows (0.1 % of bytes)`."""
        of = "time" if self.time_share is not None else "FLOPs" if self.flops_share > self.bytes_share else "bytes"
        return f"{self.num_ops} x {self.op_type} on {self.backend}: {self.reason} ({self.share:.1%} of the {of})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A backend's or an operator class's part of a program.

    `time` where a profile has it: a runtime may put several operators under one name, of which only one class is known.
    """

    name: str
    num_ops: int
    ops: float
    flops: float
    bytes: float
    time: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Lint:
    """All that the lint says of one program. `basis`: `measured`, `counted`, or `by rule, not measured`.

    `num_free` of `num_ops` operators are free of what the fast backend cannot take.
    """

    target: str
    program: str
    basis: str
    num_delegates: int
    num_ops: int
    num_free: int
    backends: tuple[Share, ...]
    classes: tuple[Share, ...]
    findings: tuple[Finding, ...]

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def lint_program(work: ProgramWork, profile: Profile | None = None) -> tuple[Finding, ...]:
    """What falls off the fast path, the largest share first; `profile` of a run here, where there is one."""
    groups: defaultdict[tuple[str, str, str], list[OpWork]] = defaultdict(list)
    for op in work.ops:
        if op.obstacle:
            groups[op.op_type, op.backend, op.obstacle].append(op)
    timed = profile if profile is not None and (profile.get("run_ms") or 0) >= MIN_RUN_MS else None
    findings = [_find(work, key, ops, timed) for key, ops in groups.items()]
    return tuple(sorted(findings, key=lambda finding: -finding.share))


def lint(work: ProgramWork, profile: Profile | None = None) -> Lint:
    """Shares of each backend and operator class, number of delegates, and the findings."""
    engine = ENGINES[work.target]
    is_rule = engine.picks_unit or engine.rule_for is not None
    return Lint(
        target=work.target,
        program=work.program,
        num_delegates=work.num_delegates,
        num_ops=len(work.ops),
        num_free=sum(not op.obstacle for op in work.ops),
        basis="measured" if profile is not None else "by rule, not measured" if is_rule else "counted",
        backends=_list_shares(work, [op.backend for op in work.ops], _time_by_backend(profile)),
        classes=_list_shares(work, [op.op_class for op in work.ops], _time_by_class(work, profile)),
        findings=lint_program(work, profile),
    )


def require_fast(work: ProgramWork, profile: Profile | None = None) -> None:
    """Raise VerificationError where one kind of operator off the fast path is more than a small share.

    A program without products, such as the decoding of pixels, is a few operators, of which those that convert the
    caller's numbers would always be a large share: it is held to nothing.
    """
    if not work.flops():
        return
    worst = next(iter(lint_program(work, profile)), None)
    if worst is not None and worst.share > MAX_SHARE:
        raise VerificationError(
            f"{work.target}: {work.program} leaves its fast path: {worst.describe()}, expected {MAX_SHARE:.0%} or less",
            "leave out --strict to accept it, or try another --precision",
        )


def print_lint(lints: Sequence[Lint], *, as_json: bool = False) -> None:
    """Print to stdout, as text or as JSON."""
    import json

    if as_json:
        echo_lines(json.dumps({"kind": "lint", "programs": [one.to_dict() for one in lints]}, indent=2))
        return
    for one in lints:
        delegates = f", {one.num_delegates} delegates" if ENGINES[one.target].has_delegates else ""
        echo(f"{one.target} {one.program} ({one.basis}{delegates})")
        rule_for = ENGINES[one.target].rule_for
        if rule_for is not None:
            echo(f"  {one.num_free} of {one.num_ops} nodes free of what {rule_for} cannot take")
        for title, shares in (("backend", one.backends), ("class", one.classes)):
            echo(f"  {title:<24}{'ops':>6}{'ops %':>8}{'FLOPs %':>9}{'bytes %':>9}{'time %':>8}")
            for share in shares:
                echo(f"  {share.name:<24}{share.num_ops:>6}{_percents(share)}")
        for finding in one.findings:
            echo(f"  {finding.describe()}")


def _find(work: ProgramWork, key: tuple[str, str, str], ops: Sequence[OpWork], profile: Profile | None) -> Finding:
    op_type, backend, reason = key
    time_share = None
    if profile is not None:
        # a profile does not tell operators of one type apart, so those of another reason are in it too
        named = [op for op in profile["ops"] if op["op_type"] == op_type]
        if ENGINES[work.target].picks_unit:
            ms = sum(op["ms"] for op in named if op["backend"] != _FAST_UNIT)
        else:
            ms = sum(op["ms"] for op in named if op["backend"] == backend)
        time_share = ms / profile["run_ms"]
    return Finding(
        op_type=op_type,
        backend=backend,
        reason=reason,
        num_ops=len(ops),
        flops_share=_part(sum(op.flops for op in ops), sum(op.flops for op in work.ops)),
        bytes_share=_part(sum(op.bytes_moved for op in ops), work.bytes_moved),
        time_share=time_share,
    )


def _list_shares(work: ProgramWork, names: Sequence[str], times: Mapping[str, float]) -> tuple[Share, ...]:
    groups: defaultdict[str, list[OpWork]] = defaultdict(list)
    for op, name in zip(work.ops, names, strict=True):
        groups[name].append(op)
    total_flops, total_ms = sum(op.flops for op in work.ops), sum(times.values())
    shares = [
        Share(
            name=name,
            num_ops=len(groups[name]),
            ops=_part(len(groups[name]), len(work.ops)),
            flops=_part(sum(op.flops for op in groups[name]), total_flops),
            bytes=_part(sum(op.bytes_moved for op in groups[name]), work.bytes_moved),
            time=_part(times[name], total_ms) if name in times else None,
        )
        for name in dict.fromkeys((*groups, *times))
    ]
    return tuple(sorted(shares, key=lambda share: (-(share.time or 0.0), -share.flops, -share.bytes)))


def _time_by_backend(profile: Profile | None) -> dict[str, float]:
    return _sum_ms((op["backend"], op["ms"]) for op in (profile or {"ops": ()})["ops"])


def _time_by_class(work: ProgramWork, profile: Profile | None) -> dict[str, float]:
    """Milliseconds by operator class; what a runtime made of several operators goes to the class of its products."""
    known = {op.op_type: op.op_class for op in work.ops}
    ops = (profile or {"ops": ()})["ops"]
    return _sum_ms((known.get(op["op_type"]) or _guess_class(op["op_type"]), op["ms"]) for op in ops)


def _guess_class(op_type: str) -> str:
    return next((op_class for word, op_class in _WORDS.items() if word in op_type.lower()), "other")


# Words in the names of operators that runtimes make when they load a program, in the order in which they decide.
_WORDS = {
    "attention": "attention",
    "matmul": "linear",
    "gemm": "linear",
    "fully connected": "linear",
    "conv": "convolution",
    "norm": "norm",
    "softmax": "softmax",
    "gelu": "elementwise",
    "transpose": "layout",
    "copy": "layout",
    "reorder": "layout",
    "slice": "layout",
    "concat": "layout",
    "quant": "quantize",
    "cast": "quantize",
}


def _sum_ms(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: defaultdict[str, float] = defaultdict(float)
    for name, ms in pairs:
        sums[name] += ms
    return dict(sums)


def _part(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _percents(share: Share) -> str:
    time = "-" if share.time is None else f"{share.time:.1%}"
    return f"{share.ops:>8.1%}{share.flops:>9.1%}{share.bytes:>9.1%}{time:>8}"
