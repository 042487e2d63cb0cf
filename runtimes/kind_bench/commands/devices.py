"""Commands about devices that are not here: `calibrate`, `devices`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from kind_bench.commands.options import CONTEXT, PATH
from kind_core.console import count_of, echo, echo_lines
from kind_core.console.commands import PlainCommand, report_errors


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
