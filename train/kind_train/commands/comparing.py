"""The command that runs the paper's comparisons: `benchmark`."""

from __future__ import annotations

from functools import partial
from typing import Any

import click
from click.core import ParameterSource

from kind_core.console import announce_loading
from kind_core.console.commands import PlainCommand, parse_counts, report_errors, split_names
from kind_core.console.vocabulary import PATH, Named
from kind_core.errors import ConfigError
from kind_train.benchmark.cell_scripts import SCRIPTS
from kind_train.benchmark.suite import SUITES
from kind_train.commands.options import judge_options

_OF_CELLS = frozenset({"list_cells", "script", "cell", "resume"})


@click.command(cls=PlainCommand)
@click.argument("suite", type=Named(SUITES), metavar="SUITE")
@click.option("--output", type=PATH, required=True, help="Folder of the results.")
@click.option(
    "--scale",
    type=click.Choice(["small", "paper"]),
    default="small",
    show_default=True,
    help="How much, of everything.",
)
@click.option("--methods", multiple=True, help="Rows of the table to make (comma or repeated) [all].")
@click.option("--checkpoint", type=PATH, help="The decomposed model, base of KIND.")
@click.option("--sample", type=Named(("photos", "garments")), help="In its place one that ships [none].")
@click.option("--dense", type=PATH, help="A dense model of the same classes, base of others.")
@click.option("--data", help="Photos of new classes; of suites that only draw: held-out ones, for their row.")
@click.option("--val-data", help="Held-out photos of the new classes [a share of --data].")
@click.option(
    "--task-size", type=int, metavar="CLASSES", help="Part the classes of --data into tasks of so many [one task]."
)
@click.option("--tasks", type=PATH, help="In place of --data: YAML, `NAME: {data: PATH, ...}`.")
@click.option("--base-data", help="Photos that suites pre-train on before they adapt.")
@click.option("--preset", help="What suites pre-train [sample].")
@click.option("--size", type=int, help="Side of the photos of what suites pre-train [the preset's].")
@click.option("--real", type=PATH, help="Statistics of the tasks' photos: TASK.safetensors each.")
@click.option("--images", type=int, help="Training images of a cell [the scale's].")
@click.option("--base-images", type=int, help="Training images before that, of num-classes [the scale's].")
@click.option("--batch-size", type=int, help="Images an update [the scale's].")
@click.option("--count", type=int, help="Pictures a class [the scale's].")
@click.option("--episodes", type=int, help="Tasks of few-shot, for each number of shots [the scale's].")
@click.option("--seeds", metavar="NUMBERS", help="Seeds of weights and photos, 0,1,2: each is a cell [0].")
@judge_options
@click.option("--steps", type=int, help="Sampler steps [the checkpoint's].")
@click.option("--guidance", type=float, help="Guidance scale [the checkpoint's].")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the first picture of each class.")
@click.option(
    "--device", default="cpu", show_default=True, help="Where it trains, draws and judges: cpu, cuda, auto ..."
)
@click.option("--list-cells", is_flag=True, help="Print the cells by number, and whether they are there.")
@click.option(
    "--script",
    type=Named(SCRIPTS),
    help="Print a script by which an engine makes the cells, each by one command [none].",
)
@click.option("--cell", metavar="NAME", help="Make this cell alone, by name or number, beside others elsewhere [all].")
@click.option("--resume", is_flag=True, help="Make the cells that --output lacks.")
@report_errors
def benchmark(
    suite: str, methods: tuple[str, ...], list_cells: bool, script: str | None, seeds: str | None, **options: Any
) -> None:
    """Run a comparison of the paper.

    class-agnostic (table 5, figure 7) and cross-class only draw; the others train every row on every task: table-1,
    novel-classes (tables 2, 8, 4), domain-shift (table 3), convergence (figure 6), gpu-time, num-classes, tailor-rank,
    init-from, frobenius, gradient-sparsity, cayley and, of classifiers on tasks of a few photos, few-shot. Each row,
    task and seed is a cell that anyone can make alone, with --cell; --script prints all of them as the job of a queue.
    What is there is not made again, and a killed one goes on where it was.

    \b
    Examples:
      kind-train benchmark class-agnostic --sample photos --output table-5
      kind-train benchmark novel-classes --checkpoint run/best --dense dense/best --data novel/ --output table-2
      kind-train benchmark novel-classes --checkpoint run/best --data novel/ --output table-2 --script slurm
    """
    from kind_train.benchmark.options import BenchmarkOptions
    from kind_train.benchmark.suite import read_suite
    from kind_train.early import check_benchmark

    asked_for = {"--list-cells": list_cells, "--script": script, "--cell": options["cell"]}
    given = [name for name, value in asked_for.items() if value]
    if len(given) > 1:
        raise ConfigError(f"{given[0]} and {given[1]} exclude each other", "leave one out")
    if script is not None and script not in SCRIPTS:
        raise ConfigError(f"script is {script!r}, expected one of {', '.join(SCRIPTS)}")
    found = read_suite(suite)
    asked = BenchmarkOptions(
        methods=split_names(methods), seeds=() if seeds is None else parse_counts("seeds", seeds), **options
    )
    check_benchmark(asked, found)
    announce_loading()
    from kind_train.benchmark.session import print_cells, print_script, run_benchmark

    show = partial(print_cells, asked.output) if list_cells else None
    if script is not None:
        show = partial(print_script, script, _repeat_command(click.get_current_context()), asked)
    run_benchmark(found, asked, show=show)


def _repeat_command(context: click.Context) -> list[str]:
    """The words of a command as its user gave them, without those that say which cells are made, and how."""
    words = ["kind-train", str(context.info_name)]
    for one in context.command.params:
        name = str(one.name)
        if name in _OF_CELLS or context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params.get(name)
        option = next((spelling for spelling in one.opts if spelling.startswith("--")), None)
        if option is None:
            words.append(str(value))
        elif isinstance(one, click.Option) and one.is_flag:
            words += [option] * bool(value)
        else:
            for each in value if isinstance(value, tuple) else (value,):
                words += [option, str(each)]
    return words
