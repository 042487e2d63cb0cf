"""What the options of several commands are made of."""

from __future__ import annotations

from kind_runtimes.engine_rows import ENGINES

CONTEXT = {"help_option_names": ["-h", "--help"]}
RUNTIMES = tuple(row.name for row in ENGINES.values() if row.counter is not None)  # whose programs are for devices
