"""`kind-bench`: the command line of measuring."""

from __future__ import annotations

import click

from kind_bench.commands import measuring, reading
from kind_bench.commands.options import CONTEXT
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
    measuring.run_command,
    measuring.import_command,
    measuring.adb_command,
    reading.compare_command,
    reading.calibrate_command,
    reading.devices_command,
    reading.lint_command,
    reading.paper_command,
):
    main.add_command(command)

if __name__ == "__main__":
    main()
