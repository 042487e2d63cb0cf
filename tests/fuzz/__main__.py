"""`python -m fuzz --cases 10000 --seed 1`, in `tests/`: counts what became of each case; exits with 1 after a failure.

`--only SUBJECT:SEED` runs one case again, with what was said.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from fuzz.harness import FAILURES, OUTCOMES, Case, make_cases, run_cases
from fuzz.kept import KEPT
from fuzz.subjects import LOWERED, SUBJECTS


def main() -> int:
    """Run, print a table, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--subject", choices=[one.name for one in SUBJECTS])
    parser.add_argument("--bundle", type=Path, help="small programs for every target, if there are some already")
    parser.add_argument("--only", metavar="SUBJECT:SEED")
    given = parser.parse_args()
    names = [given.subject] if given.subject else [one.name for one in SUBJECTS]
    if given.only:
        name, _, seed = given.only.rpartition(":")
        cases = [Case(subject=name, seed=int(seed))]
    else:
        cases = [*KEPT, *make_cases(given.cases, given.seed, names)]
    with tempfile.TemporaryDirectory() as folder:
        os.environ[LOWERED] = str(given.bundle or _lower_programs(Path(folder) / "small.kind"))
        counts = _run(cases, says_all=bool(given.only))
    _print_table(counts)
    return int(any(counts[name, outcome] for name, outcome in counts if outcome in FAILURES))


def _lower_programs(folder: Path) -> Path:
    """In a process of its own: this one loads nothing, so that it can be forked."""
    program = f"import small_bundles as s, pathlib; s.lower_programs(pathlib.Path({str(folder)!r}), s.SUFFIXES)"
    subprocess.run([sys.executable, "-c", program], check=True)
    return folder


def _run(cases: list[Case], *, says_all: bool) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    for answer in run_cases(cases):
        counts[answer.case.subject, answer.outcome] += 1
        if says_all or answer.outcome not in ("refused", "accepted"):
            print(f"{answer.outcome:10} {answer.case.subject}:{answer.case.seed}  {answer.said}", flush=True)
    return counts


def _print_table(counts: Counter[tuple[str, str]]) -> None:
    print(f"{'':24}" + "".join(f"{outcome:>11}" for outcome in OUTCOMES))
    for name in dict.fromkeys(name for name, _ in counts):
        print(f"{name:24}" + "".join(f"{counts[name, outcome]:11}" for outcome in OUTCOMES))
    totals = [sum(n for (_, found), n in counts.items() if found == outcome) for outcome in OUTCOMES]
    print(f"{'all':24}" + "".join(f"{total:11}" for total in totals))


if __name__ == "__main__":
    sys.exit(main())
