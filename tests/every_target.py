"""The targets that a test walks: those of `all`, and those of an extra, which skip where it is not installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from kind_export.target_rows import TARGET_ROWS, TargetRow
from kind_runtimes.engine_rows import ENGINES


def _parameter(row: TargetRow) -> Any:
    if row.extra is None:
        return row.name
    is_missing = find_spec(ENGINES[row.name].package) is None
    return pytest.param(row.name, marks=pytest.mark.skipif(is_missing, reason=f"needs the extra {row.extra}"))


EVERY_TARGET = [_parameter(row) for row in TARGET_ROWS.values() if row.is_program]
