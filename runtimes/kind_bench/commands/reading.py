"""Commands that read what is there: `compare`, `lint`, `paper`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from kind_bench.commands.options import CONTEXT, PATH, RUNTIMES
from kind_core.console import echo, echo_lines, tell
from kind_core.console.commands import PlainCommand, report_errors, split_names
from kind_core.console.vocabulary import Named


@click.command("compare", cls=PlainCommand, context_settings=CONTEXT)
@click.argument("before", type=PATH)
@click.argument("after", type=PATH)
@click.option("--fail-over", metavar="PERCENT", help="Exit with 1 where a figure is worse by more than this [never].")
@click.option(
    "--only",
    "groups",
    multiple=True,
    type=Named(("size", "flops", "memory", "latency", "parity")),
    help="What to compare (comma or repeated) [all].",
)
@click.option("--json", "as_json", is_flag=True, help="Print the changes as JSON.")
@report_errors
def compare_command(before: Path, after: Path, fail_over: str | None, groups: tuple[str, ...], as_json: bool) -> None:
    """Compare two reports of bundles, or two files of measured results.

    More is worse, but for parity. A figure that AFTER lacks counts as worse, so that a guard cannot pass by measuring
    nothing; --only leaves groups out.

    \b
    Examples:
      kind-bench compare old.kind/report.json new.kind/report.json --fail-over 5% --only size,flops,parity
      kind-bench compare monday.json tuesday.json
    """
    from kind_bench.results.compare import compare_files, parse_limit
    from kind_bench.results.tables import describe_comparison, format_comparison

    limit = None if fail_over is None else parse_limit(fail_over)
    comparison = compare_files(before, after, split_names(groups))
    worse = () if limit is None else comparison.worse_than(limit)
    if as_json:
        echo(json.dumps(describe_comparison(comparison, worse)))
    else:
        echo_lines(format_comparison(comparison, worse))
    if worse:
        names = ", ".join(change.name for change in worse)
        tell(f"error: worse by more than {fail_over}: {names}")
        sys.exit(1)


@click.command("lint", cls=PlainCommand, context_settings=CONTEXT)
@click.argument("bundle", type=PATH)
@click.option(
    "--runtime", "runtimes", multiple=True, type=Named(RUNTIMES), help="What to look at (comma or repeated) [all]."
)
@click.option("--profile", is_flag=True, help="Trace the steps that run here, for shares of time.")
@click.option("--strict", is_flag=True, help="Exit with 1 where more than a small share falls off the fast path.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@report_errors
def lint_command(bundle: Path, runtimes: tuple[str, ...], profile: bool, strict: bool, as_json: bool) -> None:
    """Say what of each program of BUNDLE runs outside the backend that makes it fast, how much that is, and why.

    \b
    Example:
      kind-bench lint panda.kind --runtime executorch --profile --strict
    """
    from kind_bench.lint import print_lint
    from kind_bench.linting import lint_bundle, require_all_fast

    linted = lint_bundle(bundle, split_names(runtimes), profile=profile)
    print_lint([one.lint for one in linted], as_json=as_json)
    if strict:
        require_all_fast(linted)


@click.command("paper", cls=PlainCommand, context_settings=CONTEXT)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@report_errors
def paper_command(as_json: bool) -> None:
    """Print the figures of the KIND paper beside the same ones counted here.

    \b
    Example:
      kind-bench paper
    """
    from kind_bench.paper import print_paper

    print_paper(as_json)
