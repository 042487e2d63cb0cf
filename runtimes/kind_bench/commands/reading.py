"""Commands that read what is there and what is known: `compare`, `calibrate`, `devices`, `lint`, `paper`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from kind_bench.commands.options import CONTEXT, RUNTIMES
from kind_core.console import count_of, echo, echo_lines, tell
from kind_core.console.commands import PlainCommand, report_errors, split_names
from kind_core.console.vocabulary import PATH, Named


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


@click.command("calibrate", cls=PlainCommand, context_settings=CONTEXT)
@click.argument("results", type=PATH, nargs=-1, required=True)
@click.option("--bundle", "bundles", type=PATH, multiple=True, required=True, help="A bundle that was measured.")
@click.option("--device", metavar="NAME", help="What was measured on, of the table or a file [as the results say].")
@click.option("-o", "--output", type=PATH, required=True, help="Device file to write, .json; for --device.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@report_errors
def calibrate_command(
    results: tuple[Path, ...], bundles: tuple[Path, ...], device: str | None, output: Path, force: bool
) -> None:
    """Fit a device's speeds to RESULTS that were measured on it, and write a device file for forecasts.

    \b
    Example:
      kind-bench calibrate results.json --bundle panda.kind --device a18 -o my-phone.json
    """
    from kind_bench.forecasting.measurements import calibrate_device
    from kind_bench.results.results import name_case

    calibration = calibrate_device(results, bundles, device, output, force=force)
    for rates in calibration.rates:
        name = name_case(rates.runtime, rates.threads, rates.provider)
        error = "" if rates.median_error is None else f", met within {rates.median_error:.1%} (median)"
        echo(f"{name}: {count_of(rates.num_measurements, 'measurement')}{error}")
    echo(f"written   {output}")


@click.command("devices", cls=PlainCommand, context_settings=CONTEXT)
@click.argument("name", required=False)
@click.option("--check", is_flag=True, help="Forecast each published measurement from those of other devices.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@report_errors
def devices_command(name: str | None, check: bool, as_json: bool) -> None:
    """List the devices that forecasts know, or every figure of device NAME with its source.

    \b
    Examples:
      kind-bench devices
      kind-bench devices snapdragon-8-gen-3
      kind-bench devices --check
    """
    if check:
        from kind_bench.forecasting.anchors import describe_checks

        echo_lines(describe_checks())
        return
    from kind_bench.forecasting.devices import describe_device, list_devices, load_device
    from kind_bench.forecasting.words import describe_devices, describe_figures

    devices = list_devices() if name is None else (load_device(name),)
    if as_json:
        echo(json.dumps([{"id": one.id, **describe_device(one)} for one in devices]))
    else:
        echo_lines(describe_devices(devices) if name is None else describe_figures(devices[0]))


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
