"""Suites at the smallest size, as the command line runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from kind_train.cli import main

FAST = ("--inception-weights", "none", "--dinov2", "none", "--count", "4", "--images", "24", "--batch-size", "4")


def call(*words: Any) -> str:
    """What the command printed; of one that failed the line that says why."""
    result = CliRunner().invoke(main, ["benchmark", *map(str, words)])
    if result.exit_code == 0:
        return result.stdout
    assert result.exit_code == 1, result.output
    return "failed: " + next(line for line in result.stderr.splitlines() if line.startswith("error"))


def read_lines(output: Path) -> list[dict[str, Any]]:
    """results.jsonl without its line of real photos."""
    lines = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    return [line for line in lines if line.get("arm") != "photos"]
