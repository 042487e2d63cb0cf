"""`python -m reliability --kills 300 --seed 1`, in `tests/`: troubles every command and says what was lost.

SIGKILL (`--kills`), power cuts (`--power`), SIGINT and SIGTERM (`--signals`), disks that are full at so many points of
each command (`--disks`), two at once (`--pairs`), read-only outputs (`--read-only`). Exits with 1 after a loss. `--only
CASE` runs one again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from reliability.commands import COMMANDS
from reliability.disks import SmallDisk
from reliability.harness import KINDS, Bench, Case, run_cases
from reliability.kept import KEPT

# How the kills are shared out.
_SHARES = {
    "fit": 100,
    "adapt": 20,
    "cache": 20,
    "distill": 20,
    "export": 60,
    "export --packs --base": 20,
    "kind-bench run": 20,
}


def main() -> int:
    """Run, print a table, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m reliability", description=__doc__)
    for name in ("kills", "power", "signals", "disks", "pairs", "read-only"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", choices=_SHARES, action="append")
    parser.add_argument("--only", metavar="CASE")
    given = parser.parse_args()
    kept = [case for case in KEPT if not given.command or case.command in given.command]
    cases = [_parse(given.only)] if given.only else [*kept, *_make_cases(given)]
    cases.sort(key=lambda case: list(_SHARES).index(case.command))
    counts: Counter[tuple[str, str]] = Counter()
    losses: Counter[tuple[str, str]] = Counter()
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None  # no inode number comes twice there
    with tempfile.TemporaryDirectory(dir=place, prefix="reliability-") as root, SmallDisk(Path(root), 1 << 30):
        for case, loss in run_cases(Bench(Path(root)), cases):
            counts[case.command, case.kind] += 1
            if loss:
                losses[case.command, case.kind] += 1
                print(f"LOST {case}  {loss}", flush=True)
    _print_table(counts, losses)
    return int(losses.total() > 0)


def _make_cases(given: argparse.Namespace) -> Iterator[Case]:
    commands = given.command or list(_SHARES)
    total = sum(_SHARES[name] for name in commands)
    for kind, count in (("kill", given.kills), ("power", given.power), ("signal", given.signals)):
        for name in commands:
            for i in range(round(count * _SHARES[name] / total) or min(count, 1)):
                yield Case(kind=kind, command=name, seed=given.seed * 10_007 + i)
    for kind, count in (("full disk", given.disks), ("two at once", given.pairs), ("read-only", given.read_only)):
        for name in commands:
            for i in range(count):
                yield Case(kind=kind, command=name, seed=given.seed, part=i, parts=count)


def _parse(text: str) -> Case:
    kind, command, seed, part, parts = text.split("/")
    return Case(kind=kind, command=command, seed=int(seed), part=int(part), parts=int(parts))


def _print_table(counts: Counter[tuple[str, str]], losses: Counter[tuple[str, str]]) -> None:
    print(f"{'':24}" + "".join(f"{kind:>14}" for kind in KINDS))
    for name in (one.name for one in COMMANDS):
        cells = (f"{counts[name, kind]} ({losses[name, kind]} lost)" for kind in KINDS)
        print(f"{name:24}" + "".join(f"{cell:>14}" for cell in cells))
    print(f"all: {counts.total()} troubles, {losses.total()} lost")


if __name__ == "__main__":
    sys.exit(main())
