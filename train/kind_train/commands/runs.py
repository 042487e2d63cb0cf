"""Commands that train a model: `fit`, `adapt`, `distill`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from kind_core.console import announce_loading, echo
from kind_core.console.commands import PlainCommand, parse_counts, report_errors, split_names
from kind_core.console.vocabulary import Named
from kind_core.errors import ConfigError
from kind_core.stopping import exit_code
from kind_train.commands.options import data_options, rate_options, run_options
from kind_train.config import ARMS, FACTORS, METHODS, TAILORS
from kind_train.preset_options import PRESETS, RECIPES

_OF_BASE = ("base", "the base that is adapted")
_OF_TEACHER = ("teacher", "the teacher that is distilled")
_DISTILLED = {"images": 100_000, "learning_rate": 2e-4}  # where nobody says it


@click.command(cls=PlainCommand)
@data_options
@click.option(
    "--preset",
    type=Named(PRESETS),
    metavar="NAME",
    help="What is trained, and how: of pixels sample, sample-64-cpu, garments or sample-64; of latents kind-b/2 (s, l, "
    "xl, any patch), kind-mobile or kind-l-206; dit-... is a dense twin [as --start-from, or sample].",
)
@click.option(
    "--recipe", type=Named(RECIPES), help="The paper's pre-training, 256 x 300K of kind-b/2; other options win [none]."
)
@click.option("--size", type=int, help="Side of the photos: a multiple of the preset's patches [the preset's].")
@click.option(
    "--noise-schedule",
    type=Named(("flow", "squaredcos_cap_v2", "linear", "scaled_linear")),
    help="How noise grows over time [the preset's].",
)
@click.option("--timestep-mean", type=float, help="Of flow: times are sigmoid(normal) of this mean [0.4].")
@click.option("--timestep-std", type=float, help="Of flow: and of this deviation [1.1].")
@click.option(
    "--diversion/--no-diversion",
    default=None,
    help="Open each image the gate of its own class [on]; off: all gates for every image; not a run of the paper.",
)
@click.option(
    "--factors", type=Named(FACTORS), help="cayley: the learngene's factors have orthonormal columns; slow [free]."
)
@click.option("--match", metavar="CHECKPOINT", help="Learn the predictions and features of this dense model, too.")
@click.option("--match-blocks", metavar="NUMBERS", help="Its block for each block of the model, as shrink prints them.")
@click.option(
    "--perceptual",
    type=float,
    help="Weight of a term for sharp pictures, by a classifier's first stages [the preset's]; try 0.15.",
)
@click.option(
    "--repa",
    type=float,
    help="Weight of a term, in the first half of the run, that tells the model which parts of a photo are alike [0].",
)
@click.option("--start-from", metavar="CHECKPOINT", help="Start from these weights; classes it lacks start at random.")
@click.option("--label-dropout", type=float, help="Share of images trained with the null label [0.1].")
@rate_options()
@run_options
@report_errors
def fit(config_file: Path | None, resume: bool, force: bool, match_blocks: str | None, **flags: Any) -> None:
    """Train a model by diversion; the best weights land in OUTPUT/best.

    A preset says how it is trained, too: images, batch, learning rate with its warm-up and decay, average. What is
    given wins, and the first lines say what holds.

    In several processes the batch is shared out; a run goes on with any number of them, sharded or not. Start them by
    torchrun, or by accelerate launch --multi_gpu, with or without GPUs.

    \b
    Examples:
      kind-train fit --data photos/ --output run
      kind-train fit --config sample.yaml --images 500000 --resume
      torchrun --nproc-per-node 8 --no-python kind-train fit --preset kind-b/2 --data latents --output run
      accelerate launch --multi_gpu --num_processes 8 --no_python kind-train fit --preset kind-xl/2 --shard ...
    """
    flags["match_blocks"] = None if match_blocks is None else parse_counts("match-blocks", match_blocks)
    _train(config_file, resume, force, flags)


@click.command(cls=PlainCommand)
@click.option("--checkpoint", "base", metavar="CHECKPOINT", help="The base, whose learngene is frozen.")
@data_options
@click.option("--method", type=Named(METHODS), help="How: KIND's tailors, or what the paper compares [tailors].")
@click.option("--init-from", metavar="CLASS", help="Start from this class of the base, or `nearest` [at random].")
@click.option("--tailor-rank", type=int, help="Rank of the new tailors, and budget of other methods [the base's].")
@click.option(
    "--text-embeddings", metavar="FOLDER", help="Captions of the data, by kind-train embed: for a model of captions."
)
@click.option(
    "--caption-dropout", type=float, metavar="SHARE", help="Share of images trained with the null caption [0.1]."
)
@rate_options(images="50000", learning_rate="the paper's: 1e-3, 1e-4 ...")
@run_options
@report_errors
def adapt(config_file: Path | None, resume: bool, force: bool, **flags: Any) -> None:
    """Train tailors of new classes beside the frozen learngene of a checkpoint.

    OUTPUT/best is the checkpoint with the new classes added; every file of the base is in it as it was. `kind-train
    add` puts the new tailors into the base itself. Other methods change the base, some start from a dense one, and
    write a checkpoint of the new classes alone.

    \b
    Examples:
      kind-train adapt --checkpoint base --data novel.parquet --output run
      kind-train adapt --checkpoint base --data bears/ --init-from koala --output run
      kind-train adapt --checkpoint dense --data novel.parquet --method svdiff --output svdiff
      kind-export --checkpoint run/best --classes "polar bear" --target coreml
    """
    if flags["method"] in {*METHODS} - {TAILORS}:
        announce_loading()  # the others are asked for their defaults, with torch
    _train(config_file, resume, force, flags, _OF_BASE)


@click.command(cls=PlainCommand)
@click.option("--checkpoint", "teacher", metavar="CHECKPOINT", help="The teacher: a flow model that predicts images.")
@data_options
@click.option("--steps", metavar="NUMBERS", help="Numbers of steps to draw in, the most first: 4,2,1.")
@click.option(
    "--train",
    type=Named(ARMS),
    help="What of the student: all of it, its tailors alone beside the teacher's learngene, its modulations alone "
    "beside both, new components for every class beside both, or these and the modulations [everything].",
)
@click.option(
    "--accelerator-rank", type=int, metavar="COMPONENTS", help="New components in every matrix, of an accelerator [16]."
)
@click.option("--guidance", type=float, help="Guidance to build in [the teacher's].")
@click.option(
    "--perceptual", type=float, help="Weight of a term for sharp pictures, by a classifier's first stages [0]."
)
@click.option(
    "--match-photos",
    type=float,
    help="Weight of a term for pictures as sharp and as varied as the photos of their class, by a classifier [0].",
)
@click.option(
    "--match-size", type=int, help="Side at which that classifier compares pictures with photos, 32 to 224 [64]."
)
@click.option(
    "--match-classifier",
    metavar="FILE",
    help="A classifier of the very classes that compares, too, not the one that judges [EfficientNet-Lite0 alone].",
)
@click.option(
    "--class-guidance",
    metavar="NAME=SCALE",
    multiple=True,
    help="Guidance of a class's own in that term; may be repeated [--guidance for every class].",
)
@click.option("--follow", type=float, help="Weight of the teacher's own steps; 0 with --match-photos alone [1].")
@click.option("--size", type=int, help="Side of the student's pictures, where photos alone teach it [the teacher's].")
@click.option("--start-from", metavar="CHECKPOINT", help="Go on from this earlier student of the same teacher.")
@rate_options(images="100000", learning_rate="2e-4")
@run_options
@report_errors
def distill(config_file: Path | None, resume: bool, force: bool, steps: str | None, **flags: Any) -> None:
    """Teach a student to draw in one to four steps, guidance included, what its teacher draws in twenty guided ones.

    OUTPUT/best is a checkpoint like any other, whose programs take no guidance and run the class's half alone.

    \b
    Examples:
      kind-train distill --checkpoint run/best --data photos/ --steps 4,2,1 --output few
      kind-train distill --checkpoint run/best --data photos/ --steps 4,2,1 --train table --output few
      kind-train distill --checkpoint run/best --data photos/ --steps 4,2,1 --start-from few/best --output more
      kind-train distill --checkpoint run/best --data photos/ --steps 4,2,1 --follow 0 --match-photos 1 --output sharp
      kind-train distill --checkpoint run/best --data photos/ --steps 1 --follow 0 --match-photos 1 --size 64 --output x
      kind-export --checkpoint few/best --classes panda --target all --steps 2
    """
    flags |= {"steps": None if steps is None else parse_counts("steps", steps), "label_dropout": 0.0}
    _train(config_file, resume, force, flags, _OF_TEACHER)


def _require_origin(options: Mapping[str, object], origin: tuple[str, str] | None) -> None:
    if origin is not None and options[origin[0]] is None:
        name, what = origin
        raise ConfigError("no checkpoint given", f"add --checkpoint, or `{name}:` in the YAML file: {what}")


def _imply(options: Mapping[str, object]) -> Mapping[str, object]:
    """What options imply for those that nobody gives."""
    from kind_train.methods import adaptation_defaults

    return _DISTILLED if options.get("teacher") is not None else adaptation_defaults(options)


def _train(
    config_file: Path | None, resume: bool, force: bool, flags: dict[str, object], origin: tuple[str, str] | None = None
) -> None:
    """`origin`: the option that the command cannot do without, whoever gives it, and what that is."""
    from kind_train.early import check_run
    from kind_train.options_file import gather_options

    classes = flags["classes"]
    assert isinstance(classes, tuple)
    flags["classes"] = split_names(classes)
    if config_file is None and not resume:
        _require_origin(flags, origin)
    config = gather_options(config_file, flags, resume=resume, defaults=_imply)
    _require_origin(asdict(config), origin)
    check_run(config, resume=resume, force=force)
    announce_loading()
    from kind_train.fit import fit_model

    try:
        result = fit_model(config, resume=resume, force=force)
    except KeyboardInterrupt as error:
        sys.exit(exit_code(error))  # fit_model said how to go on
    if result.is_main:
        if result.best_loss is None:
            echo("no photo was held out: the checkpoint is the last one")
        else:
            echo(f"best held-out loss {result.best_loss:.5f}")
        echo(f"checkpoint         {result.checkpoint}")
