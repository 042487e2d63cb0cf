"""`kind-bench`: the command line of measuring. Each command parses, calls one library function and prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kind_core.console import echo, echo_lines, tell
from kind_core.console.commands import PlainGroup, completion_option, report_errors, split_names
from kind_core.console.vocabulary import Named
from kind_core.errors import ConfigError

if TYPE_CHECKING:
    from kind_bench.results.results import Results

_CONTEXT = {"help_option_names": ["-h", "--help"]}
_RUNTIMES = ("onnx", "executorch", "coreml", "litert")
_PATH = click.Path(path_type=Path)


@click.group(cls=PlainGroup, context_settings=_CONTEXT)
@click.version_option(package_name="kind-diffusion")
@completion_option("kind-bench")
def main() -> None:
    """Measure bundles, here and on phones, compare what was measured, and look up devices and the paper's figures.

    \b
    Example:
      kind-bench run panda.kind --json
    """


@main.command("run", context_settings=_CONTEXT)
@click.argument("bundle", type=_PATH)
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    type=Named(_RUNTIMES),
    help="What to measure (comma or repeated) [all that run].",
)
@click.option("--threads", multiple=True, metavar="COUNTS", help="Numbers of threads [the runtime's own choice].")
@click.option(
    "--provider",
    "providers",
    multiple=True,
    metavar="NAMES",
    help="ONNX: CPU, CoreML, ...; Core ML: units [the runtime's own choice].",
)
@click.option("--warmup", type=int, default=3, show_default=True, help="Untimed calls first, in each process.")
@click.option("--repeat", type=int, default=20, show_default=True, help="Samples of a step, over all rounds.")
@click.option("--rounds", type=int, default=3, show_default=True, help="Fresh processes of each case, by turns.")
@click.option("--images", type=int, default=1, show_default=True, help="Whole pictures in each process.")
@click.option(
    "--sustain",
    "sustain_s",
    type=float,
    default=0.0,
    metavar="SECONDS",
    help="Measure a step after so many seconds of work, too [0: not].",
)
@click.option("--cold", is_flag=True, help="Load with the programs' files dropped from the system's cache.")
@click.option("--profile", is_flag=True, help="Also trace where a step's time goes, operator by operator.")
@click.option("-o", "--output", type=_PATH, help="Results file to write.")
@click.option("--force", is_flag=True, help="Replace an existing results file.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@report_errors
def run_command(output: Path | None, force: bool, as_json: bool, **options: Any) -> None:
    """Measure the programs of BUNDLE: step, picture, decoding, load and memory.

    Every runtime is combined with every number of threads and every provider. Each case runs in fresh processes, one
    after the other and by turns. Interrupted with Ctrl-C, what was measured is kept and marked partial.

    \b
    Examples:
      kind-bench run panda.kind
      kind-bench run panda.kind --runtime onnx --threads 1,2 --warmup 3 --repeat 20 --json
      kind-bench run panda.kind --runtime onnx,executorch --profile -o here.json
    """
    from kind_bench.measure.cases import BenchRequest, measure_bundle
    from kind_bench.results.results import RESULTS
    from kind_core.files.staging import check_output
    from kind_runtimes.progress import show_progress

    if output is not None:
        check_output(output, RESULTS, force=force)
    for name in ("runtimes", "providers"):
        options[name] = split_names(options[name])
    options["threads"] = _parse_counts(options["threads"])
    with show_progress("checking the bundle") as show:
        measured = measure_bundle(BenchRequest(**options), show)
    for note in measured.notes:
        echo(note, err=True)
    count = len(measured.results.cases)
    if count:
        _show_results(measured.results, output, force=force, as_json=as_json)
    if measured.error is not None:
        raise measured.error
    if measured.interrupted:
        kept = f"{count} case{'s' if count > 1 else ''} kept, marked partial" if count else "nothing was measured"
        echo(f"interrupted: {kept}", err=True)
        sys.exit(130)


@main.command("import", context_settings=_CONTEXT)
@click.argument("results", type=_PATH)
@click.option("--bundle", type=_PATH, required=True, help="The bundle that was measured.")
@click.option("--json", "as_json", is_flag=True, help="Print the completed results as JSON.")
@report_errors
def import_command(results: Path, bundle: Path, as_json: bool) -> None:
    """Take RESULTS, measured on another machine, into a bundle, where its report finds them.

    They are kept under measured/ in the bundle, which no hash covers. Results of another model are refused.

    \b
    Example:
      kind-bench import results-from-phone.json --bundle panda.kind
    """
    from kind_bench.results.importing import import_results

    completed, place = import_results(results, bundle)
    _show_results(completed, None, force=False, as_json=as_json)
    echo(f"kept as {place}", err=True)


@main.command("adb", context_settings=_CONTEXT)
@click.argument("bundle", type=_PATH)
@click.option("--serial", help="Which device, where several are attached [the only one].")
@click.option("--runner", type=_PATH, help="Program for the device that measures, in place of the sample app.")
@click.option("--runtime", type=Named(("onnx", "executorch")), help="What runs there [the app's choice].")
@click.option("--class", "class_name", metavar="NAME", help="Class to draw [the first].")
@click.option("--timeout", "timeout_s", type=float, default=900, show_default=True, help="Seconds to wait at most.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@report_errors
def adb_command(as_json: bool, **options: Any) -> None:
    """Measure BUNDLE on an attached Android device and take the results into it.

    The bundle is pushed, the benchmark of the sample app (or a runner) started, and its results pulled.

    \b
    Examples:
      kind-bench adb panda.kind
      kind-bench adb panda.kind --serial R5CT60 --runner build/kind-runner --runtime executorch
    """
    from kind_bench.measure.adb import AdbRequest, measure_on_device
    from kind_runtimes.progress import show_progress

    with show_progress("looking for the device") as show:
        results, place = measure_on_device(AdbRequest(**options), show)
    _show_results(results, None, force=False, as_json=as_json)
    echo(f"kept as {place}", err=True)


@main.command("compare", context_settings=_CONTEXT)
@click.argument("before", type=_PATH)
@click.argument("after", type=_PATH)
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


@main.command("calibrate", context_settings=_CONTEXT)
@click.argument("results", type=_PATH, nargs=-1, required=True)
@click.option("--bundle", "bundles", type=_PATH, multiple=True, required=True, help="A bundle that was measured.")
@click.option("--device", metavar="NAME", help="What was measured on, of the table or a file [as the results say].")
@click.option("-o", "--output", type=_PATH, required=True, help="Device file to write, .json; for --device.")
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
    from kind_bench.forecasting.calibrating import calibrate_device
    from kind_bench.results.results import name_case

    calibration = calibrate_device(results, bundles, device, output, force=force)
    for rates in calibration.rates:
        name = name_case(rates.runtime, rates.threads, rates.provider)
        error = "" if rates.median_error is None else f", met within {rates.median_error:.1%} (median)"
        echo(f"{name}: {rates.num_measurements} measurement{'s' * (rates.num_measurements > 1)}{error}")
    echo(f"written   {output}")


@main.command("devices", context_settings=_CONTEXT)
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


@main.command("lint", context_settings=_CONTEXT)
@click.argument("bundle", type=_PATH)
@click.option(
    "--runtime", "runtimes", multiple=True, type=Named(_RUNTIMES), help="What to look at (comma or repeated) [all]."
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


@main.command("paper", context_settings=_CONTEXT)
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


def _parse_counts(given: tuple[str, ...]) -> tuple[int, ...]:
    try:
        return tuple(int(text) for text in split_names(given))
    except ValueError as error:
        raise ConfigError(f"threads is {','.join(given)!r}, expected whole numbers", "--threads 1,2") from error


def _show_results(results: Results, output: Path | None, *, force: bool, as_json: bool) -> None:
    if output is not None:
        from kind_bench.results.results import write_results

        write_results(results, output, force=force)
    if as_json:
        echo(json.dumps(results.data))
        return
    from kind_bench.results.tables import format_results

    echo_lines(format_results(results))
    if output is not None:
        echo(f"written   {output}")


if __name__ == "__main__":
    main()
