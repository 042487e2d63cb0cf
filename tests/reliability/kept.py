"""Cases in which something was once lost: they come first."""

from __future__ import annotations

from reliability.harness import Case

KEPT: tuple[Case, ...] = ()
