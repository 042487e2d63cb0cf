"""A suite as the command line runs it: what is done on stderr, the table on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kind_core.console import echo, echo_lines
from kind_core.console.tables import open_console, say
from kind_core.errors import ConfigError
from kind_train.benchmark.class_agnostic import Request
from kind_train.benchmark.runner import run_suite
from kind_train.benchmark.suite import Row, Suite


def run_benchmark(
    suite: Suite,
    rows: Sequence[Row],
    *,
    output: Path,
    scale: str,
    checkpoint: Path | None,
    sample: str | None,
    dense: Path | None,
    data: str | None,
    classifier: Path | None,
    seed: int,
    device: str,
    resume: bool,
) -> None:
    """Run the rows that are missing and print the table of all."""
    if checkpoint is not None and sample is not None:
        raise ConfigError("expected one of --checkpoint and --sample", "leave one out")
    if checkpoint is None:
        from kind_samples import SAMPLES, sample_checkpoint

        checkpoint = sample_checkpoint(sample or SAMPLES[0])
    request = Request(
        checkpoint=checkpoint, dense=dense, data=data, count=suite.counts[scale], seed=seed, device=device
    )
    console = open_console(stderr=True)
    run_suite(
        suite,
        request,
        rows,
        output,
        scale=scale,
        classifier=classifier,
        resume=resume,
        tell=lambda line: say(console, line),
    )
    echo_lines((output / "results.md").read_text(encoding="utf-8"))
    echo(str(output))
