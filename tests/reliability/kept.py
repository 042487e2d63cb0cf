"""Cases in which something was once lost: they come first."""

from __future__ import annotations

from reliability.harness import Case

KEPT: tuple[Case, ...] = (
    Case(kind="full disk", command="export --packs --base", seed=1, part=0, parts=4),  # its lock stayed
    Case(kind="kill", command="export --packs --base", seed=10008),  # killed when all was done: its lock stayed
    Case(kind="power", command="fit", seed=110077),  # between the last state and its checkpoint
)
