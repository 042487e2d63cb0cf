"""The metrics of a run: a line of JSON for what was trained since the last one, and one for each validation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from kind_core.errors import CheckpointError, OutputError
from kind_core.files.json_files import parse_json
from kind_core.files.regular_files import require_regular
from kind_core.files.staging import PART, staged

METRICS_NAME = "metrics.jsonl"


def trim_metrics(folder: Path, step: int) -> None:
    """Forget the metrics of steps after `step`, which a run resumed from there writes again."""
    file = folder / METRICS_NAME
    if not file.exists():
        return
    kept = "".join(line for line, record in read_metrics(folder) if record["step"] <= step)
    if kept.encode() != file.read_bytes():
        with staged(file, PART, force=True) as temporary:
            temporary.write_text(kept, encoding="utf-8")


def read_metrics(folder: Path) -> list[tuple[str, dict[str, float]]]:
    """The whole lines of a run's metrics with their numbers; what a kill, a failing disk or a hand left is none."""
    file, found = folder / METRICS_NAME, []
    if not file.exists():
        return []
    try:
        require_regular(file)
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise CheckpointError(
            f"cannot read {file}: {error.strerror or error}", "remove it: the run needs none"
        ) from error
    for line in text.splitlines(keepends=True):
        with suppress(ValueError):
            data = parse_json(line)
            is_whole = line.endswith("\n") and isinstance(data, dict) and "step" in data
            if is_whole and all(isinstance(one, int | float) for one in data.values()):
                found.append((line, data))
    return found


def append_metrics(folder: Path, record: Mapping[str, float]) -> None:
    """Add one line to the run's metrics."""
    file = folder / METRICS_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(dict(record)) + "\n")
    except OSError as error:
        message = f"cannot write {file}: {error.strerror or error}"
        raise OutputError(message, "mend that, then continue with --resume") from error
