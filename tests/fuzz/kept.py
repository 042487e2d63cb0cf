"""Cases that once ended in a traceback, a hang or for want of memory: they are run first, by every command."""

from __future__ import annotations

from fuzz.harness import Case

KEPT: tuple[Case, ...] = tuple(
    Case(subject=subject, seed=seed)
    for subject, seed in (
        ("program counted", 15), ("program counted", 3_000_432), ("program counted", 1_001_350),
        ("program counted", 1_004_026), ("program alone", 5_001_951), ("options", 9), ("pack", 797),
        ("report", 223), ("report", 511), ("report", 547), ("checkpoint", 373), ("checkpoint", 97),
        ("report", 2_002_593), ("report", 2_004_357), ("run", 31_000_102),
        ("pack", 46_000_639), ("pack", 47_000_471), ("pack", 47_000_509), ("ExecuTorch program", 77_001_281),
    )
)  # fmt: skip
