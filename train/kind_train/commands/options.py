"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from kind_core.console.vocabulary import PATH, Named
from kind_train.config import REPORTS

_F = TypeVar("_F", bound=Callable[..., Any])


def with_options(*options: Callable[[_F], _F]) -> Callable[[_F], _F]:
    """Several click options as one decorator, in the order of `--help`."""

    def decorate(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


data_options = with_options(
    click.option("--config", "config_file", type=PATH, help="YAML file of options; flags win."),
    click.option(
        "--data",
        help="Image folder (one folder a class), .parquet, WebDataset shards, hub:ORG/NAME, or a cache of latents.",
    ),
    click.option("--val-data", help="Held-out photos; without it --val-fraction of the data is held out."),
    click.option("--val-fraction", type=float, help="Share held out when there is no --val-data [0.05]."),
    click.option("--classes", multiple=True, help="Train these classes only (comma or repeated)."),
    click.option("--output", help="Run folder."),
)


def rate_options(images: str | None = None, learning_rate: str | None = None) -> Callable[[_F], _F]:
    """How much is trained and how fast; without `images` and `learning_rate`, the defaults, a preset decides all."""

    def default(plain: str | None) -> str:
        return "[the preset's]" if images is None else f"[{plain}]"

    return with_options(
        click.option("--images", type=int, help=f"Training images to see {default(images)}."),
        click.option("--learning-rate", type=float, help=f"Largest step of an update {default(learning_rate)}."),
        click.option("--batch-size", type=int, help=f"Images an update, over all processes {default('64')}."),
        click.option(
            "--warmup-images", type=int, help=f"Warm the learning rate up over so many images {default('0')}."
        ),
        click.option(
            "--decay-fraction",
            type=float,
            help=f"Let the learning rate fall to zero over the last share {default('0')}.",
        ),
        click.option(
            "--ema-decay", type=float, help=f"How much of the average stays at each update {default('0.9999')}."
        ),
        click.option("--save-every", type=int, help=f"Images between checkpoints {default('20000')}."),
        click.option("--sample-every", type=int, help=f"Images between sample grids {default('20000')}."),
    )


run_options = with_options(
    click.option("--weight-decay", type=float, help="How much weights shrink, times the learning rate [0]."),
    click.option("--max-grad-norm", type=float, help="Longer gradients are shortened to this [1.0]."),
    click.option("--flip/--no-flip", default=None, help="Mirror half of the images [on]."),
    click.option("--seed", type=int, help="Seed of weights, order of photos and noise [0]."),
    click.option("--device", help="auto, cpu, cuda, cuda:1 ... [auto]."),
    click.option(
        "--compute",
        "--precision",
        "precision",
        type=Named(("auto", "fp32", "bf16")),
        help="Numbers of the computation; auto is bf16 on a GPU; on a CPU without AMX bf16 is slow [auto].",
    ),
    click.option("--shard/--no-shard", default=None, help="Share the weights out over the processes (FSDP2) [off]."),
    click.option(
        "--checkpoint-activations/--no-checkpoint-activations",
        default=None,
        help="Compute each block twice instead of keeping what it computed [off].",
    ),
    click.option("--compile/--no-compile", default=None, help="Compile the model with torch.compile [off]."),
    click.option("--report-to", type=Named(REPORTS), help="Send the metrics there, too [metrics.jsonl alone]."),
    click.option(
        "--stop-at-unreadable/--skip-unreadable",
        "--strict/--no-strict",
        "strict",
        default=None,
        help="Stop at an unreadable image, or skip it and say so [skip].",
    ),
    click.option("--resume", is_flag=True, help="Continue the run in --output."),
    click.option("--force", is_flag=True, help="Replace an existing run in --output."),
)


judge_options = with_options(
    click.option("--classifier", type=PATH, help="Judge: a file of kind-train classifier [EfficientNet-Lite2]."),
    click.option(
        "--inception-weights", metavar="FILE|none", help="Inception-v3 of torch-fidelity, for FID [torch hub's cache]."
    ),
    click.option(
        "--dinov2", metavar="FOLDER|none", help="DINOv2 of transformers, for FDD [dinov2-large in the Hub's cache]."
    ),
)


output_argument = with_options(
    click.argument("output", type=PATH, required=False),
    click.option("-o", "--output", "output_option", type=PATH, help="The same as OUTPUT."),
)


def choose_output(argument: Path | None, option: Path | None) -> Path:
    """The output of a command that takes it as its last word or by -o; raises UsageError for none and for both."""
    given = [one for one in (argument, option) if one is not None]
    if len(given) != 1:
        raise click.UsageError(f"expected one output, as the last word or by -o, not {len(given)}")
    return given[0]
