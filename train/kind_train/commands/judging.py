"""Commands that judge pictures: `classifier`, `statistics`, `evaluate`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from kind_core.console import announce_loading, echo
from kind_core.console.commands import PlainCommand, parse_interval, report_errors, split_names
from kind_core.console.vocabulary import PATH, Named
from kind_core.errors import ConfigError
from kind_train.commands.options import judge_options


@click.command(cls=PlainCommand)
@click.option("--data", required=True, help="Photos that no model was trained on: held-out ones.")
@click.option("--val-data", help="Other photos, to say how often it is right [half of --data].")
@click.option("--classes", multiple=True, help="Learn these classes only (comma or repeated).")
@click.option("--size", type=int, default=32, show_default=True, help="Side of the pictures that it will judge.")
@click.option("--images", type=int, default=60_000, show_default=True, help="Training images to see.")
@click.option("--flip/--no-flip", default=True, show_default=True, help="Mirror half of the images.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of weights and order of photos.")
@click.option("-o", "--output", type=PATH, required=True, help="File to write.")
@click.option("--force", is_flag=True, help="Replace an existing --output.")
@report_errors
def classifier(
    data: str,
    val_data: str | None,
    output: Path,
    classes: tuple[str, ...],
    size: int,
    images: int,
    flip: bool,
    seed: int,
    force: bool,
) -> None:
    """Train a small classifier of your own classes, for kind-train evaluate --classifier; minutes on a CPU.

    \b
    Example:
      kind-train classifier --data held-out-a/ --val-data held-out-b/ --output judge.safetensors
      kind-train evaluate --checkpoint run/best --data photos/ --val-data held-out-b/ --classifier judge.safetensors
    """
    from kind_core.config.checks import require_positive, require_seed
    from kind_core.console.tables import open_console, say
    from kind_core.files.staging import check_free, check_output, staged
    from kind_train.early import require_photos

    chosen = split_names(classes)
    check_free(output, force=force)
    require_positive("images", images)
    require_seed(seed)
    require_photos(data, chosen)
    if val_data is not None:
        require_photos(val_data)
    announce_loading()
    from kind_train.data.photo_set import load_photos
    from kind_train.data.training_set import describe_overlap, split_photos
    from kind_train.display import show_progress
    from kind_train.evaluate.small_classifier import CLASSIFIER, save_classifier, train_classifier

    check_output(output, CLASSIFIER, force=force)
    console = open_console(stderr=True)
    tell = partial(say, console, style="yellow")
    photos = load_photos(data, size, classes=chosen, tell=tell)
    if val_data is None:
        train, test = split_photos(photos, 0.5, seed)  # half of them says how often it is right
    else:
        train, test = photos, load_photos(val_data, size, classes=photos.classes, tell=tell)
        if (overlap := describe_overlap(train, test)) is not None:
            tell(overlap)
    with show_progress(console, "images") as update:
        network, info = train_classifier(train, test, images=images, flip=flip, seed=seed, progress=update)
    with staged(output, CLASSIFIER, force=force) as temporary:
        save_classifier(temporary, network, info)
    echo(f"{output}  {info.accuracy:.1%} right on {info.num_tested} photos, trained on {info.num_trained} others")


@click.command(cls=PlainCommand)
@click.option("--data", required=True, help="Real photos: image folder, .parquet, WebDataset shards or hub:ORG/NAME.")
@click.option("--size", type=int, required=True, help="Side of the pictures that they will be compared with.")
@click.option("--classes", multiple=True, help="Photos of these classes only (comma or repeated).")
@click.option(
    "--keep",
    type=int,
    metavar="PHOTOS",
    default=10_000,
    show_default=True,
    help="Photos kept for precision and recall.",
)
@judge_options
@click.option("--batch-size", type=int, default=64, show_default=True, help="Photos in memory at a time.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the photos that are kept.")
@click.option("--device", default="cpu", show_default=True, help="Where the networks run: cpu, cuda, auto ...")
@click.option("-o", "--output", type=PATH, required=True, help="File to write.")
@click.option("--force", is_flag=True, help="Replace an existing --output.")
@report_errors
def statistics(
    data: str,
    output: Path,
    classes: tuple[str, ...],
    size: int,
    keep: int,
    classifier: Path | None,
    inception_weights: str | None,
    dinov2: str | None,
    batch_size: int,
    seed: int,
    device: str,
    force: bool,
) -> None:
    """See real photos once: mean, covariance and some features of every network, for --real of other commands.

    Photos are read one after the other, so that memory does not grow with their number.

    \b
    Example:
      kind-train statistics --data held-out/ --size 256 --device cuda -o real.safetensors
      kind-train evaluate --checkpoint run/best --real real.safetensors
    """
    from kind_core.config.checks import require_seed
    from kind_core.console.tables import open_console, say
    from kind_core.files.staging import check_free, check_output, staged
    from kind_train.early import require_networks, require_photos
    from kind_train.places import require_device

    chosen = split_names(classes)
    check_free(output, force=force)
    require_seed(seed)
    require_photos(data, chosen)
    require_device(device)
    require_networks(classifier, inception_weights)
    for name, value in (("size", size), ("keep", keep), ("batch_size", batch_size)):
        if value < 1:
            raise ConfigError(f"{name} is {value}, expected 1 or more")
    announce_loading()
    from kind_train.data.photo_set import stream_photos
    from kind_train.device import pick_device
    from kind_train.display import show_progress
    from kind_train.evaluate.judges import open_judge, open_observers
    from kind_train.evaluate.statistics import STATISTICS, collect_statistics, save_statistics

    check_output(output, STATISTICS, force=force)
    console = open_console(stderr=True)
    photos = stream_photos(data, size, classes=chosen, part_size=batch_size, tell=partial(say, console, style="yellow"))
    place = str(pick_device(device))
    networks = open_observers(open_judge(classifier, place), inception_weights, dinov2, place)
    with show_progress(console, "photos") as update:
        found = collect_statistics(photos, networks, keep=keep, seed=seed, progress=update)
    with staged(output, STATISTICS, force=force) as temporary:
        save_statistics(temporary, found)
    seen = ", ".join(one.name for one in found.networks)
    echo(f"{output}  {sum(found.counts)} photos of {len(found.classes)} classes at {size} x {size}, seen by {seen}")


@click.command(cls=PlainCommand)
@click.option("--checkpoint", type=PATH, help="Checkpoint folder.")
@click.option("--sample", type=Named(("photos", "garments")), help="In place of a checkpoint: one that ships [none].")
@click.option("--bundle", type=PATH, help="Exported bundle, in place of a checkpoint.")
@click.option(
    "--runtime",
    type=Named(("onnx", "executorch", "coreml", "litert")),
    help="Runtime of the bundle [the first that runs here].",
)
@click.option("--data", type=PATH, help="The photos it was trained on.")
@click.option("--val-data", type=PATH, help="Held-out photos of the same classes.")
@click.option(
    "--real", type=PATH, help="In place of both: a file of kind-train statistics; then no floor and no copying."
)
@click.option("--classes", multiple=True, help="Measure these classes only (comma or repeated).")
@click.option("--count", type=int, default=200, show_default=True, help="Pictures a class.")
@click.option(
    "--cross-count", type=int, default=50, show_default=True, help="Pictures a pair of the cross-class check."
)
@click.option("--cross-matrix", is_flag=True, help="Cross-class check of all pairs, not of neighbours only.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the first picture of each class.")
@click.option("--device", default="cpu", show_default=True, help="Where a checkpoint draws: cpu, cuda, auto ...")
@click.option("--steps", type=int, help="Sampler steps [the checkpoint's].")
@click.option("--guidance", type=float, help="Guidance scale [the checkpoint's].")
@click.option("--guidance-interval", metavar="LO,HI", help="Guidance in this share of the steps only [0,1].")
@judge_options
@click.option("-o", "--output", type=PATH, help="Write the whole report as JSON.")
@click.option("--resume", is_flag=True, help="Continue the interrupted evaluation beside --output.")
@click.option("--force", is_flag=True, help="Replace an existing --output.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@report_errors
def evaluate(
    classes: tuple[str, ...],
    sample: str | None,
    output: Path | None,
    resume: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure pictures beside real held-out photos: asked-class share, distance, precision and recall, copying.

    A bundle is run in its own runtime from the same noise as its checkpoint, so the two differ by what export cost.
    FID, sFID, Inception Score and FDD are added where their networks' weights are given or cached; none is downloaded.
    With --output what was seen is kept beside it until the report is written: a killed one goes on there with --resume.

    \b
    Examples:
      kind-train evaluate --checkpoint run/best --data train.parquet --val-data val.parquet
      kind-train evaluate --bundle panda.kind --data train.parquet --val-data val.parquet
    """
    from kind_core.files.staging import check_free, check_output
    from kind_train.early import check_evaluation
    from kind_train.evaluation import EvaluationRequest, check_leftover

    real = options.pop("real")
    if sample is not None:
        from kind_samples import sample_checkpoint

        if options["checkpoint"] is not None:
            raise ConfigError("both --checkpoint and --sample were given", "give one of them")
        options |= {"checkpoint": sample_checkpoint(sample)}
    options |= {"guidance_interval": parse_interval(options["guidance_interval"])}
    request = EvaluationRequest(classes=split_names(classes), **options)
    if output is not None:
        check_free(output, force=force)
    check_leftover(output, resume=resume, force=force)
    check_evaluation(request, real)
    announce_loading()
    from kind_train.evaluate.session import REPORT, run_evaluation

    if output is not None:
        check_output(output, REPORT, force=force)
    run_evaluation(request, real, output, resume=resume, force=force, as_json=as_json)
