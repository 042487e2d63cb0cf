"""Commands that prepare photos: `cache`, `embed`, `imagenet-split`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from kind_core.console import announce_loading, echo
from kind_core.console.commands import PlainCommand, report_errors, split_names
from kind_core.console.vocabulary import PATH
from kind_core.stopping import describe_ignored, exit_code
from kind_train.commands.options import choose_output, output_argument


@click.command(cls=PlainCommand)
@click.option("--data", required=True, help="Image folder, .parquet file, WebDataset shards or hub:ORG/NAME[:SPLIT].")
@click.option("--autoencoder", type=PATH, required=True, help="Folder of a diffusers autoencoder.")
@click.option("--output", type=PATH, required=True, help="Folder of the cache.")
@click.option("--size", type=int, default=256, show_default=True, help="Side of the photos in pixels.")
@click.option("--classes", multiple=True, help="Encode these classes only (comma or repeated).")
@click.option("--flip/--no-flip", default=True, show_default=True, help="Encode the mirror images too.")
@click.option("--captions", is_flag=True, help="Keep the photos' captions, for a model of captions.")
@click.option("--batch-size", type=int, default=16, show_default=True, help="Photos encoded at a time.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda ...")
@click.option(
    "--stop-at-unreadable",
    "--strict",
    "strict",
    is_flag=True,
    help="Stop at an unreadable image instead of skipping it.",
)
@click.option("--resume", is_flag=True, help="Continue the cache in --output.")
@click.option("--force", is_flag=True, help="Replace an existing cache in --output.")
@report_errors
def cache(**options: Any) -> None:
    """Encode photos once by an autoencoder, so that a model of latents trains on them.

    \b
    Example:
      kind-train cache --data photos/ --autoencoder sd-vae-ft-ema --output latents
      kind-train fit --data latents --preset kind-b/2 --output run
    """
    from kind_core.console.tables import open_console, say
    from kind_core.diffusers.layout import require_settings
    from kind_train.data.requests import CacheRequest
    from kind_train.early import require_photos
    from kind_train.places import require_device

    request = CacheRequest(**options | {"classes": split_names(options["classes"])})
    require_photos(request.data, request.classes)
    require_settings(request.autoencoder)
    require_device(request.device)
    announce_loading()
    from kind_train.data.caching import make_cache
    from kind_train.display import show_progress

    console = open_console(stderr=True)
    if (ignored := describe_ignored()) is not None:
        say(console, ignored)
    try:
        with show_progress(console, "encoding") as update:
            result = make_cache(request, update, lambda line: say(console, line, style="yellow"))
    except KeyboardInterrupt as error:
        say(console, f"interrupted; what is encoded lies in {request.output}, continue with --resume")
        sys.exit(exit_code(error))
    echo(f"{result.photos} photos, {result.latents} latents, {result.duplicates} photos twice")
    echo(f"{request.output}  {result.size_bytes / 1e6:.1f} MB")


@click.command(cls=PlainCommand)
@click.option("--data", help="Captioned photos: a folder with NAME.txt beside NAME.jpg or metadata.jsonl, or .parquet.")
@click.option("--caption", metavar="TEXT", help="This caption alone, for kind-run: OUTPUT is then a file.")
@click.option("--text-encoder", type=PATH, required=True, help="Folder of a PixArt pipeline with its T5.")
@click.option("--output", type=PATH, required=True, help="Folder of the embedded captions.")
@click.option("--classes", multiple=True, help="Captions of these classes only (comma or repeated).")
@click.option("--tokens", type=int, metavar="WORDS", help="Words at most that are read of a caption [the pipeline's].")
@click.option("--batch-size", type=int, default=16, show_default=True, help="Captions embedded at a time.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda ...")
@click.option("--resume", is_flag=True, help="Add to those in --output.")
@click.option("--force", is_flag=True, help="Replace those in --output.")
@report_errors
def embed(**options: Any) -> None:
    """Embed the captions of photos once by a text encoder, so that a model of captions trains on them.

    \b
    Examples:
      kind-train embed --data sketches/ --text-encoder pixart --output words
      kind-train embed --caption "a lighthouse in fog" --text-encoder pixart --output lighthouse.safetensors
    """
    from kind_core.console.tables import open_console, say
    from kind_train.data.requests import EmbedRequest
    from kind_train.early import require_photos
    from kind_train.places import require_device

    request = EmbedRequest(**options | {"classes": split_names(options["classes"])})
    request.require_encoder()
    if request.data is not None:
        require_photos(request.data, request.classes)
    require_device(request.device)
    announce_loading()
    from kind_train.data.captions.embedding import embed_caption, embed_captions
    from kind_train.display import show_progress

    if request.caption is not None:
        words = len(embed_caption(request).text)
        echo(f"{request.output}  {words} words")
        return
    console = open_console(stderr=True)
    try:
        with show_progress(console, "embedding") as update:
            result = embed_captions(request, update, lambda line: say(console, line, style="yellow"))
    except KeyboardInterrupt as error:
        say(console, f"interrupted; what is embedded lies in {request.output}, continue with --resume")
        sys.exit(exit_code(error))
    echo(f"{result.captions} captions, {result.new} of them new")
    echo(f"{request.output}  {result.size_bytes / 1e6:.1f} MB")


@click.command("imagenet-split", cls=PlainCommand)
@click.argument("imagenet", type=PATH)
@output_argument
@click.option("--part", "parts", multiple=True, help="pretrain, task-01 ... task-18 (comma or repeated) [all].")
@click.option("--force", is_flag=True, help="Replace an existing OUTPUT.")
@report_errors
def imagenet_split(
    imagenet: Path, output: Path | None, output_option: Path | None, parts: tuple[str, ...], force: bool
) -> None:
    """Arrange ImageNet-1K as the paper trains on it: links to the photos of 150 classes, and of 18 novel tasks.

    IMAGENET has one folder a WordNet id, as train/ of ILSVRC-2012.

    \b
    Example:
      kind-train imagenet-split ILSVRC2012/train imagenet-kind
      kind-train cache --data imagenet-kind/pretrain --autoencoder sd-vae-ft-ema --output latents
    """
    place = choose_output(output, output_option)
    from kind_core.console.tables import open_console
    from kind_train.data.imagenet import split_imagenet
    from kind_train.display import show_progress

    with show_progress(open_console(stderr=True), "linking") as update:
        counts = split_imagenet(imagenet, place, split_names(parts), force=force, on_progress=update)
    for part, count in counts.items():
        echo(f"{part}  {count} photos")
