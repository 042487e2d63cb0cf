"""The delegation lint of a whole bundle, with a profile of each step where one can be made here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kind_bench.counting import count_bundle
from kind_bench.counting.work import ProgramWork
from kind_bench.lint import Lint, Profile, lint, require_fast
from kind_bench.measure.cases import BenchRequest, profile_bundle
from kind_core.errors import VerificationError
from kind_runtimes.bundle import open_bundle


@dataclass(frozen=True, kw_only=True, slots=True)
class Linted:
    """What the lint says of a program, and what it looked at."""

    lint: Lint
    work: ProgramWork
    profile: Profile | None


def lint_bundle(folder: Path, runtimes: Sequence[str] = (), *, profile: bool = False) -> tuple[Linted, ...]:
    """Every program of the targets in `runtimes`, or of all; with `profile`, the steps that run here are traced."""
    bundle = open_bundle(folder)
    chosen = [bundle.manifest.target(name).target for name in runtimes or bundle.manifest.targets]
    request = BenchRequest(bundle=folder, runtimes=tuple(runtimes), warmup=0)
    profiles = profile_bundle(request) if profile else {}
    counted = count_bundle(bundle)
    works = [work for target in chosen for work in counted.get(target, {}).values()]
    found = ((work, profiles.get(work.target) if work.program == "step" else None) for work in works)
    return tuple(Linted(lint=lint(work, trace), work=work, profile=trace) for work, trace in found)


def require_all_fast(linted: Sequence[Linted]) -> None:
    """Raise VerificationError for the first program that leaves the fast path with more than a small share."""
    failures = []
    for one in linted:
        try:
            require_fast(one.work, one.profile)
        except VerificationError as error:
            failures.append(error)
    if failures:
        more = f"; and {len(failures) - 1} more programs" if len(failures) > 1 else ""
        raise VerificationError(failures[0].message + more, failures[0].hint)
