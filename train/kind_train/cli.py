"""`kind-train`: the command line of training."""

from __future__ import annotations

import click

from kind_core.console.commands import PlainGroup, completion_option
from kind_train.commands.checkpoints import add, convert, init, shrink
from kind_train.commands.comparing import benchmark
from kind_train.commands.judging import classifier, evaluate, statistics
from kind_train.commands.photos import cache, embed, imagenet_split
from kind_train.commands.runs import adapt, distill, fit

_CONTEXT = {"help_option_names": ["-h", "--help"]}


@click.group(cls=PlainGroup, context_settings=_CONTEXT)
@click.version_option(package_name="kind-diffusion")
@completion_option("kind-train")
def main() -> None:
    """Train a decomposable diffusion transformer.

    \b
    Example:
      kind-train fit --data photos/ --output run
    """


# in the order of --help
_COMMANDS = (
    fit,
    adapt,
    distill,
    cache,
    embed,
    imagenet_split,
    add,
    classifier,
    statistics,
    benchmark,
    evaluate,
    convert,
    shrink,
    init,
)
for command in _COMMANDS:
    main.add_command(command)
