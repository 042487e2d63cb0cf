"""Commands that measure, here and on phones: `run`, `import`, `adb`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kind_bench.commands.options import CONTEXT, RUNTIMES
from kind_core.console import count_of, echo, echo_lines
from kind_core.console.commands import PlainCommand, report_errors, split_names
from kind_core.console.vocabulary import PATH, Named
from kind_core.errors import ConfigError

if TYPE_CHECKING:
    from kind_bench.results.results import Results


@click.command("run", cls=PlainCommand, context_settings=CONTEXT)
@click.argument("bundle", type=PATH)
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    type=Named(RUNTIMES),
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
@click.option("-o", "--output", type=PATH, help="Results file to write.")
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
        kept = f"{count_of(count, 'case')} kept, marked partial" if count else "nothing was measured"
        echo(f"interrupted: {kept}", err=True)
        sys.exit(130)


@click.command("import", cls=PlainCommand, context_settings=CONTEXT)
@click.argument("results", type=PATH)
@click.option("--bundle", type=PATH, required=True, help="The bundle that was measured.")
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


@click.command("adb", cls=PlainCommand, context_settings=CONTEXT)
@click.argument("bundle", type=PATH)
@click.option("--serial", help="Which device, where several are attached [the only one].")
@click.option("--runner", type=PATH, help="Program for the device that measures, in place of the sample app.")
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
