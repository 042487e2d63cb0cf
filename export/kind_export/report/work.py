"""What a report says of the work of each program: totals, memory, backends, where the FLOPs and bytes are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from kind_bench.counting.work import OpWork, ProgramWork
from kind_bench.lint import Profile, lint
from kind_runtimes.documents.reports.model import LintEntry, SumEntry, WorkEntry

Works = Mapping[str, Mapping[str, ProgramWork]]


def describe_works(works: Works, profiles: Mapping[str, Profile]) -> dict[str, dict[str, WorkEntry]]:
    """Every program by target and name; `profiles` are of guided steps here, by target."""
    return {
        target: {
            name: _describe(work, profiles.get(target) if name == "step" else None) for name, work in programs.items()
        }
        for target, programs in works.items()
    }


def _describe(work: ProgramWork, profile: Profile | None) -> WorkEntry:
    found = lint(work, profile)
    return {
        "flops": {"full": work.flops(), "paper": work.flops("paper")},
        "bytes_moved": work.bytes_moved,
        "weight_bytes": work.weight_bytes,
        "peak_activation_bytes": work.peak_activation_bytes,
        "num_ops": len(work.ops),
        "num_delegates": work.num_delegates,
        "by_class": _group(work.ops, lambda op: op.op_class),
        "by_layer": _group(work.ops, lambda op: op.layer) if any(op.layer for op in work.ops) else [],
        "delegation": cast(LintEntry, found.to_dict()),
    }


def _group(ops: Iterable[OpWork], key: Callable[[OpWork], str]) -> list[SumEntry]:
    """Sums by name, in the order in which the names first come."""
    groups: defaultdict[str, list[OpWork]] = defaultdict(list)
    for op in ops:
        groups[key(op)].append(op)
    return [
        {
            "name": name,
            "num_ops": len(members),
            "flops": sum(op.flops for op in members),
            "bytes_moved": sum(op.bytes_moved for op in members),
            "weight_bytes": sum(op.weight_bytes for op in members),
        }
        for name, members in groups.items()
    ]
