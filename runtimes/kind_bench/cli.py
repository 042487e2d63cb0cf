"""`kind-bench`: the command line of measuring."""

from __future__ import annotations

import click

from kind_bench.commands.devices import calibrate_command, devices_command
from kind_bench.commands.measuring import adb_command, import_command, run_command
from kind_bench.commands.options import CONTEXT
from kind_bench.commands.reading import compare_command, lint_command, paper_command
from kind_core.console.commands import PlainGroup, completion_option


@click.group(cls=PlainGroup, context_settings=CONTEXT)
@click.version_option(package_name="kind-diffusion")
@completion_option("kind-bench")
def main() -> None:
    """Measure bundles, here and on phones, compare what was measured, and look up devices and the paper's figures.

    \b
    Example:
      kind-bench run panda.kind --json
    """


# in the order of --help
for command in (
    run_command,
    import_command,
    adb_command,
    compare_command,
    calibrate_command,
    devices_command,
    lint_command,
    paper_command,
):
    main.add_command(command)

if __name__ == "__main__":
    main()
