"""Commands from checkpoint to checkpoint: `init`, `shrink`, `add`, `convert`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kind_core.console import announce_loading, echo
from kind_core.console.commands import PlainCommand, report_errors, split_names
from kind_core.console.vocabulary import PATH, Named
from kind_core.errors import ConfigError
from kind_core.samplers import SAMPLERS
from kind_train.commands.options import choose_output, output_argument
from kind_train.config import CONSTRUCTIONS

if TYPE_CHECKING:
    from rich.table import Table

    from kind_train.start.from_dit import InitResult

_DTYPES = ("fp16", "fp32")  # what `convert` stores


@click.command(cls=PlainCommand)
@click.option("--from-dit", type=PATH, help="Folder of a diffusers DiT, or hub:ORG/NAME.")
@click.option("--from-pixart", type=PATH, help="Instead: of a diffusers PixArt, which draws from captions.")
@click.option("--preset", help="Whose ranks to take: kind-b/2, kind-l/2, kind-xl/2 ...")
@click.option("--learngene-rank", type=int, help="Instead of a preset: components for every class [the preset's].")
@click.option("--tailor-rank", type=int, help="Instead of a preset: components a class [the preset's].")
@click.option("--classes", multiple=True, help="Labels to keep, by name or number (comma or repeated) [all].")
@click.option("--domains", multiple=True, help="Of a PixArt: what its tailors are of (comma or repeated).")
@click.option(
    "--tailors",
    type=Named(("strongest", "dealt", "random")),
    default="strongest",
    show_default=True,
    help="What tailors start from.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of random tailors.")
@click.option("-o", "--output", type=PATH, required=True, help="Checkpoint folder to write.")
@click.option("--force", is_flag=True, help="Replace an existing --output.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@report_errors
def init(
    from_dit: Path | None,
    from_pixart: Path | None,
    classes: tuple[str, ...],
    domains: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Start from a trained DiT or PixArt: its matrices' singular vectors as learngene and tailors; says what they lose.

    \b
    Examples:
      kind-train init --from-dit DiT-XL-2-256 --preset kind-xl/2 -o start
      kind-train init --from-dit dit/ --learngene-rank 300 --tailor-rank 4 --classes "goldfish,lemon" -o start
      kind-train init --from-pixart pixart/ --learngene-rank 900 --tailor-rank 16 --domains photo,sketch -o start
    """
    from kind_core.console.tables import open_console
    from kind_train.start.requests import InitRequest

    source = from_dit if from_pixart is None else from_pixart
    if source is None or None not in (from_dit, from_pixart):
        raise ConfigError(
            "a start is from one trained model", "give --from-dit FOLDER, or --from-pixart FOLDER instead"
        )
    request = InitRequest(
        source=source,
        classes=split_names(classes),
        is_pixart=from_pixart is not None,
        domains=split_names(domains),
        **options,
    )
    request.check_places()
    announce_loading()
    from kind_train.display import show_progress
    from kind_train.start.from_dit import init_from_dit, init_from_pixart

    with show_progress(open_console(stderr=True), "decomposing") as update:
        start = init_from_pixart if request.is_pixart else init_from_dit
        result = start(request, lambda done, total: update(done, total, "matrices"))
    if as_json:
        errors = [asdict(error) for error in result.errors]
        echo(json.dumps({"checkpoint": str(request.output), "size_bytes": result.size_bytes, "errors": errors}))
        return
    open_console().print(_tabulate_errors(result))
    echo(f"checkpoint  {request.output}  {result.size_bytes / 1e6:.2f} MB")


def _tabulate_errors(result: InitResult) -> Table:
    from rich import box
    from rich.table import Table

    config = result.config
    title = f"Error of N_G {config.learngene_rank}, N_T {config.tailor_rank}, of the norm of each matrix"
    table = Table(box=box.SIMPLE_HEAD, title=title)
    for heading in ("matrix", "learngene alone", "with the first tailor", "with the last"):
        table.add_column(heading, justify="left" if heading == "matrix" else "right")
    for one in result.errors:
        table.add_row(one.name, *(f"{value:.2%}" for value in (one.learngene, one.first_class, one.last_class)))
    return table


@click.command(cls=PlainCommand)
@click.argument("source", type=PATH)
@output_argument
@click.option("--construction", type=Named(CONSTRUCTIONS), required=True, help="Which blocks are kept, and how chosen.")
@click.option("--blocks", type=int, metavar="BLOCKS", help="To so many [the paper's share: 10 or 7 of 12].")
@click.option("--data", help="Photos or a cache on which laptop-diff measures what each block does.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of random blocks, photos and noise.")
@click.option("--device", default="cpu", show_default=True, help="Where blocks are measured: cpu, cuda, auto ...")
@click.option("--force", is_flag=True, help="Replace an existing OUTPUT.")
@report_errors
def shrink(source: Path, output: Path | None, output_option: Path | None, **options: Any) -> None:
    """Make a dense checkpoint smaller by blocks, as the paper's table 1 compares it, to be trained on.

    \b
    Example:
      kind-train shrink dense/best small --construction laptop-diff --data photos/
      kind-train fit --data photos/ --start-from small --match dense/best --match-blocks 0,2,5 --output run
    """
    place = choose_output(output, output_option)
    from kind_core.checkpoint_config import read_config
    from kind_core.files.staging import check_free
    from kind_train.early import require_photos
    from kind_train.places import require_device
    from kind_train.start.requests import ShrinkRequest

    check_free(place, force=options["force"])
    if options["data"] is not None:
        require_photos(options["data"])
    require_device(options["device"])
    request = ShrinkRequest(source=source, output=place, **options)
    request.require_depth(read_config(source).dit)
    announce_loading()
    from kind_train.start.shrinking import shrink_checkpoint

    made = shrink_checkpoint(request, tell=lambda line: echo(line, err=True))
    for block, change in enumerate(made.changes):
        echo(f"block {block}  changes the prediction by {change:.4g}{'' if block in made.origins else ', taken out'}")
    kept = ",".join("random" if origin is None else str(origin) for origin in made.origins)
    echo(f"{place}  blocks {kept}")


@click.command(cls=PlainCommand)
@click.argument("base", type=PATH)
@click.argument("source", type=PATH)
@click.option("--classes", multiple=True, help="Add these classes [all that BASE lacks] (comma or repeated).")
@report_errors
def add(base: Path, source: Path, classes: tuple[str, ...]) -> None:
    """Add tailors of the checkpoint SOURCE to the checkpoint BASE, whose own files stay as they are.

    \b
    Example:
      kind-train add base run/best
    """
    from kind_core.checkpoint_config import read_config
    from kind_core.classes import resolve_classes

    instead = "its domains are added by training: kind-train adapt --checkpoint BASE; kind-export captions takes it"
    read_config(base, of_captions=instead)
    resolve_classes(split_names(classes), read_config(source, of_captions=instead).classes)
    announce_loading()
    from kind_core.growth import add_classes

    for info in add_classes(base, source, split_names(classes)):
        echo(f"{info.id}  {info.name}")


@click.command(cls=PlainCommand)
@click.argument("source", type=PATH)
@output_argument
@click.option(
    "--precision",
    "--dtype",
    "dtype",
    type=Named(_DTYPES),
    default="fp16",
    show_default=True,
    help="Numbers that are stored.",
)
@click.option("--sampler", type=Named(SAMPLERS), help="Default sampler to store [as it is].")
@click.option("--steps", type=int, help="Default sampler steps to store [as they are].")
@click.option("--guidance", type=float, help="Default guidance scale to store [as it is].")
@click.option("--author", help="Whose the weights are, for model cards and programs [as it is].")
@click.option("--licence", help="Their licence: apache-2.0, cc-by-nc-4.0, or in words [as it is].")
@click.option("--trained-on", metavar="TEXT", help="The data they were trained on, in words [as it is].")
@click.option("--force", is_flag=True, help="Replace an existing OUTPUT.")
@report_errors
def convert(source: Path, output: Path | None, output_option: Path | None, **options: Any) -> None:
    """Make a checkpoint ready to ship: fp16 weights and the sampling defaults that measured best.

    \b
    Example:
      kind-train convert run/best my-model --guidance 2.5
      kind-train convert run/best my-model --author "A. Uthor" --licence apache-2.0 --trained-on "my own photos"
    """
    place = choose_output(output, output_option)
    from kind_core.checkpoint_config import read_config
    from kind_core.config.sampling import choose_defaults
    from kind_core.files.staging import check_free

    if options["dtype"] not in _DTYPES:
        raise ConfigError(f"precision is {options['dtype']!r}, expected one of {', '.join(_DTYPES)}")
    check_free(place, force=options["force"])
    instead = "kind-export captions takes it, with --precision fp16, --sampler, --steps and --guidance"
    known = read_config(source, of_captions=instead).diffusion
    choose_defaults(known, **{name: options[name] for name in ("sampler", "steps", "guidance")})
    announce_loading()
    from kind_train.start.convert import convert_checkpoint

    size_bytes = convert_checkpoint(source, place, **options)
    echo(f"{place}  {size_bytes / 1e6:.2f} MB")
