"""`kind-train`: the command line of training. Commands parse, call one library function and print."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from kind_core.console import echo
from kind_core.console.commands import (
    PlainGroup,
    completion_option,
    parse_counts,
    parse_interval,
    report_errors,
    split_names,
)
from kind_core.console.vocabulary import Named
from kind_core.errors import ConfigError
from kind_core.samplers import SAMPLERS
from kind_train.config import ARMS, METHODS, RECIPES, REPORTS

_F = TypeVar("_F", bound=Callable[..., Any])
_CONTEXT = {"help_option_names": ["-h", "--help"]}


@click.group(cls=PlainGroup, context_settings=_CONTEXT)
@click.version_option(package_name="kind-diffusion")
@completion_option("kind-train")
def main() -> None:
    """Train a decomposable diffusion transformer.

    \b
    Example:
      kind-train fit --data photos.parquet --output run --images 250000
    """


def _with_options(*options: Callable[[_F], _F]) -> Callable[[_F], _F]:
    """Several click options as one decorator, in the order of `--help`."""

    def decorate(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_data_options = _with_options(
    click.option("--config", "config_file", type=click.Path(path_type=Path), help="YAML file of options; flags win."),
    click.option(
        "--data",
        help="Image folder (one folder a class), .parquet, WebDataset shards, hub:ORG/NAME, or a cache of latents.",
    ),
    click.option("--val-data", help="Held-out photos; without it --val-fraction of the data is held out."),
    click.option("--val-fraction", type=float, help="Share held out when there is no --val-data [0.05]."),
    click.option("--classes", multiple=True, help="Train these classes only (comma or repeated)."),
    click.option("--output", help="Run folder."),
)
_run_options = _with_options(
    click.option("--batch-size", type=int, help="Images an update, over all processes [64]."),
    click.option("--warmup-images", type=int, help="Warm the learning rate up over so many images [0]."),
    click.option("--decay-fraction", type=float, help="Let the learning rate fall to zero over the last share [0]."),
    click.option("--weight-decay", type=float, help="How much weights shrink, times the learning rate [0]."),
    click.option("--max-grad-norm", type=float, help="Longer gradients are shortened to this [1.0]."),
    click.option("--ema-decay", type=float, help="How much of the average stays at each update [0.9999]."),
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
    click.option("--save-every", type=int, help="Images between checkpoints [20000]."),
    click.option("--sample-every", type=int, help="Images between sample grids [20000]."),
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


_output_argument = _with_options(
    click.argument("output", type=click.Path(path_type=Path), required=False),
    click.option("-o", "--output", "output_option", type=click.Path(path_type=Path), help="The same as OUTPUT."),
)


def _choose_output(argument: Path | None, option: Path | None) -> Path:
    """The output of a command that takes it as its last word or by -o; raises UsageError for none and for both."""
    given = [one for one in (argument, option) if one is not None]
    if len(given) != 1:
        raise click.UsageError(f"expected one output, as the last word or by -o, not {len(given)}")
    return given[0]


@main.command()
@_data_options
@click.option(
    "--preset",
    help="sample, sample-64, sample-64-cpu, kind-mobile, kind-l-206, kind-b/2, kind-l/2, dit-b/2 ... "
    "[as --start-from, or sample].",
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
    "--perceptual",
    type=float,
    help="Weight of a term for sharp pictures, by a classifier's first stages [0]; try 0.15.",
)
@click.option("--start-from", metavar="CHECKPOINT", help="Start from these weights; classes it lacks start at random.")
@click.option("--images", type=int, help="Training images to see [250000].")
@click.option("--learning-rate", type=float, help="Largest step of an update [1e-4]; 6e-4 suits `sample`.")
@click.option("--label-dropout", type=float, help="Share of images trained with the null label [0.1].")
@_run_options
@report_errors
def fit(config_file: Path | None, resume: bool, force: bool, **flags: Any) -> None:
    """Train a model by diversion; the best weights land in OUTPUT/best.

    In several processes the batch is shared out; a run goes on with any number of them, sharded or not. Start them by
    torchrun, or by accelerate launch --multi_gpu, with or without GPUs.

    \b
    Examples:
      kind-train fit --data photos/ --output run
      kind-train fit --config sample.yaml --images 500000 --resume
      torchrun --nproc-per-node 8 --no-python kind-train fit --preset kind-b/2 --data latents --output run
      accelerate launch --multi_gpu --num_processes 8 --no_python kind-train fit --preset kind-xl/2 --shard ...
    """
    _train(config_file, resume, force, flags)


@main.command()
@click.option("--checkpoint", "base", metavar="CHECKPOINT", help="The base, whose learngene is frozen.")
@_data_options
@click.option("--method", type=Named(METHODS), help="How: KIND's tailors, or what the paper compares [tailors].")
@click.option("--init-from", metavar="CLASS", help="Start from this class of the base, or `nearest` [at random].")
@click.option("--tailor-rank", type=int, help="Rank of the new tailors, and budget of other methods [the base's].")
@click.option("--images", type=int, help="Training images to see [50000].")
@click.option("--learning-rate", type=float, help="Largest step of an update [the paper's: 1e-3, 1e-4 ...].")
@_run_options
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
      kind-export --checkpoint run/best --classes "polar bear"
    """
    if config_file is None and not resume and flags["base"] is None:
        raise ConfigError("no checkpoint given", "add --checkpoint, the base that is adapted")
    _train(config_file, resume, force, flags)


@main.command()
@click.option("--checkpoint", "teacher", metavar="CHECKPOINT", help="The teacher: a flow model that predicts images.")
@_data_options
@click.option("--steps", metavar="NUMBERS", help="Numbers of steps to draw in, the most first: 4,2,1.")
@click.option(
    "--train",
    type=Named(ARMS),
    help="What of the student; of tailors alone the teacher's learngene stays [everything].",
)
@click.option("--guidance", type=float, help="Guidance to build in [the teacher's].")
@click.option("--images", type=int, help="Training images to see [100000].")
@click.option("--learning-rate", type=float, help="Largest step of an update [2e-4].")
@_run_options
@report_errors
def distill(config_file: Path | None, resume: bool, force: bool, steps: str | None, **flags: Any) -> None:
    """Teach a student to draw in one to four steps, guidance included, what its teacher draws in twenty guided ones.

    OUTPUT/best is a checkpoint like any other, whose programs take no guidance and run the class's half alone.

    \b
    Examples:
      kind-train distill --checkpoint run/best --data photos/ --steps 4,2,1 --output few
      kind-train distill --checkpoint run/best --data photos/ --steps 4,2,1 --train tailors --output few
      kind-export --checkpoint few/best --classes panda --target all --steps 2
    """
    is_new = config_file is None and not resume
    for name, value in (("images", 100_000), ("learning_rate", 2e-4)):
        flags[name] = value if flags[name] is None and is_new else flags[name]
    if is_new and flags["teacher"] is None:
        raise ConfigError("no checkpoint given", "add --checkpoint, the teacher that is distilled")
    flags |= {"steps": None if steps is None else parse_counts("steps", steps), "label_dropout": 0.0}
    _train(config_file, resume, force, flags)


def _train(config_file: Path | None, resume: bool, force: bool, flags: dict[str, Any]) -> None:
    from kind_train.config import gather_options
    from kind_train.early import check_run
    from kind_train.methods import adaptation_defaults

    flags["classes"] = split_names(flags["classes"])
    config = gather_options(config_file, flags, resume=resume, defaults=adaptation_defaults)
    check_run(config, resume=resume, force=force)
    from kind_train.fit import fit_model

    try:
        result = fit_model(config, resume=resume, force=force)
    except KeyboardInterrupt:
        sys.exit(130)  # fit_model said how to go on
    if result.is_main:
        if result.best_loss is None:
            echo("no photo was held out: the checkpoint is the last one")
        else:
            echo(f"best held-out loss {result.best_loss:.5f}")
        echo(f"checkpoint         {result.checkpoint}")


@main.command()
@click.option("--data", required=True, help="Image folder, .parquet file, WebDataset shards or hub:ORG/NAME[:SPLIT].")
@click.option(
    "--autoencoder", type=click.Path(path_type=Path), required=True, help="Folder of a diffusers autoencoder."
)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder of the cache.")
@click.option("--size", type=int, default=256, show_default=True, help="Side of the photos in pixels.")
@click.option("--classes", multiple=True, help="Encode these classes only (comma or repeated).")
@click.option("--flip/--no-flip", default=True, show_default=True, help="Encode the mirror images too.")
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
    from kind_train.places import require_data

    require_data(options["data"])
    from kind_train.data.caching import CacheRequest, make_cache
    from kind_train.display import show_progress

    console = open_console(stderr=True)
    request = CacheRequest(**options | {"classes": split_names(options["classes"])})
    with show_progress(console, "encoding") as update:
        result = make_cache(request, update, lambda line: say(console, line, style="yellow"))
    echo(f"{result.photos} photos, {result.latents} latents, {result.duplicates} photos twice")
    echo(f"{request.output}  {result.size_bytes / 1e6:.1f} MB")


@main.command("imagenet-split")
@click.argument("imagenet", type=click.Path(path_type=Path))
@_output_argument
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
    place = _choose_output(output, output_option)
    from kind_core.console.tables import open_console
    from kind_train.data.imagenet_split import split_imagenet
    from kind_train.display import show_progress

    with show_progress(open_console(stderr=True), "linking") as update:
        counts = split_imagenet(imagenet, place, split_names(parts), force=force, on_progress=update)
    for part, count in counts.items():
        echo(f"{part}  {count} photos")


@main.command()
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--classes", multiple=True, help="Add these classes [all that BASE lacks] (comma or repeated).")
@report_errors
def add(base: Path, source: Path, classes: tuple[str, ...]) -> None:
    """Add tailors of the checkpoint SOURCE to the checkpoint BASE, whose own files stay as they are.

    \b
    Example:
      kind-train add base run/best
    """
    from kind_core.growth import add_classes

    for info in add_classes(base, source, split_names(classes)):
        echo(f"{info.id}  {info.name}")


@main.command()
@click.option("--data", required=True, help="Photos that no model was trained on: held-out ones.")
@click.option("--val-data", help="Other photos, to say how often it is right [half of --data].")
@click.option("--classes", multiple=True, help="Learn these classes only (comma or repeated).")
@click.option("--size", type=int, default=32, show_default=True, help="Side of the pictures that it will judge.")
@click.option("--images", type=int, default=60_000, show_default=True, help="Training images to see.")
@click.option("--flip/--no-flip", default=True, show_default=True, help="Mirror half of the images.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of weights and order of photos.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option("--force", is_flag=True, help="Replace an existing --output.")
@report_errors
def classifier(classes: tuple[str, ...], **options: Any) -> None:
    """Train a small classifier of your own classes, for kind-train evaluate --classifier; minutes on a CPU.

    \b
    Example:
      kind-train classifier --data held-out-a/ --val-data held-out-b/ --output judge.safetensors
      kind-train evaluate --checkpoint run/best --data photos/ --val-data held-out-b/ --classifier judge.safetensors
    """
    from kind_train.places import require_data

    for path in (options["data"], options["val_data"]):
        if path is not None:
            require_data(path)
    from kind_train.evaluate.classifier_session import run_classifier

    run_classifier(classes=split_names(classes), **options)


@main.command()
@click.argument("suite")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder of the results.")
@click.option(
    "--scale", type=click.Choice(["small", "paper"]), default="small", show_default=True, help="How much is drawn."
)
@click.option("--methods", multiple=True, help="Rows of the table to make (comma or repeated) [all].")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="The decomposed model.")
@click.option("--sample", type=Named(("photos", "garments")), help="In its place one that ships [photos].")
@click.option("--dense", type=click.Path(path_type=Path), help="A dense model of the same classes, for its row.")
@click.option("--data", help="Held-out photos of the classes, for their row.")
@click.option(
    "--classifier", type=click.Path(path_type=Path), help="Judge: a file of kind-train classifier [EfficientNet-Lite2]."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the first picture of each class.")
@click.option("--device", default="cpu", show_default=True, help="Where it draws and judges: cpu, cuda, auto ...")
@click.option("--resume", is_flag=True, help="Make the rows that --output lacks.")
@report_errors
def benchmark(suite: str, methods: tuple[str, ...], resume: bool, **options: Any) -> None:
    """Run a comparison of the paper. SUITE: class-agnostic (table 5, figure 7: what carries the class).

    Each row is a cell that can be made by itself, with --methods and --resume; what is there is not made again.

    \b
    Example:
      kind-train benchmark class-agnostic --sample photos --output table-5
    """
    from kind_train.benchmark.suite import read_suite

    found = read_suite(suite)
    rows = found.choose(split_names(methods))
    from kind_train.benchmark.session import run_benchmark

    run_benchmark(found, rows, resume=resume, **options)


@main.command()
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Checkpoint folder.")
@click.option("--sample", type=Named(("photos", "garments")), help="In place of a checkpoint: one that ships [none].")
@click.option("--bundle", type=click.Path(path_type=Path), help="Exported bundle, in place of a checkpoint.")
@click.option(
    "--runtime", type=Named(("onnx", "executorch", "coreml")), help="Runtime of the bundle [the first that runs here]."
)
@click.option("--data", type=click.Path(path_type=Path), required=True, help="The photos it was trained on.")
@click.option("--val-data", type=click.Path(path_type=Path), required=True, help="Held-out photos of the same classes.")
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
@click.option(
    "--classifier", type=click.Path(path_type=Path), help="Judge: a file of kind-train classifier [EfficientNet-Lite2]."
)
@click.option(
    "--inception-weights", metavar="FILE|none", help="Inception-v3 of torch-fidelity, for FID [torch hub's cache]."
)
@click.option(
    "--dinov2", metavar="FOLDER|none", help="DINOv2 of transformers, for FDD [dinov2-large in the Hub's cache]."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the whole report as JSON.")
@click.option("--force", is_flag=True, help="Replace an existing --output.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@report_errors
def evaluate(
    classes: tuple[str, ...], sample: str | None, output: Path | None, force: bool, as_json: bool, **options: Any
) -> None:
    """Measure pictures beside real held-out photos: asked-class share, distance, precision and recall, copying.

    A bundle is run in its own runtime from the same noise as its checkpoint, so the two differ by what export cost.
    FID, sFID, Inception Score and FDD are added where their networks' weights are given or cached; none is downloaded.

    \b
    Examples:
      kind-train evaluate --checkpoint run/best --data train.parquet --val-data val.parquet
      kind-train evaluate --bundle panda.kind --data train.parquet --val-data val.parquet
    """
    from kind_core.files.staging import check_output
    from kind_train.early import check_evaluation

    check_evaluation(options)
    from kind_train.evaluate.session import REPORT, run_evaluation

    if output is not None:
        check_output(output, REPORT, force=force)
    if sample is not None:
        from kind_samples import sample_checkpoint

        if options["checkpoint"] is not None:
            raise ConfigError("both --checkpoint and --sample were given", "give one of them")
        options |= {"checkpoint": sample_checkpoint(sample)}
    options |= {"guidance_interval": parse_interval(options["guidance_interval"])}
    run_evaluation(split_names(classes), options, output, force=force, as_json=as_json)


@main.command()
@click.argument("source", type=click.Path(path_type=Path))
@_output_argument
@click.option(
    "--precision",
    "--dtype",
    "dtype",
    type=Named(("fp16", "fp32")),
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
    place = _choose_output(output, output_option)
    from kind_train.start.convert import convert_checkpoint

    size_bytes = convert_checkpoint(source, place, **options)
    echo(f"{place}  {size_bytes / 1e6:.2f} MB")


@main.command()
@click.option(
    "--from-dit",
    "source",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of a diffusers DiT, or hub:ORG/NAME.",
)
@click.option("--preset", help="Whose ranks to take: kind-b/2, kind-l/2, kind-xl/2 ...")
@click.option("--learngene-rank", type=int, help="Instead of a preset: components for every class [the preset's].")
@click.option("--tailor-rank", type=int, help="Instead of a preset: components a class [the preset's].")
@click.option("--classes", multiple=True, help="Labels to keep, by name or number (comma or repeated) [all].")
@click.option(
    "--tailors",
    type=Named(("strongest", "dealt", "random")),
    default="strongest",
    show_default=True,
    help="What tailors start from.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of random tailors.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Checkpoint folder to write.")
@click.option("--force", is_flag=True, help="Replace an existing --output.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@report_errors
def init(classes: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Start from a trained DiT: the singular vectors of its matrices as learngene and tailors; prints what they lose.

    \b
    Examples:
      kind-train init --from-dit DiT-XL-2-256 --preset kind-xl/2 -o start
      kind-train init --from-dit dit/ --learngene-rank 300 --tailor-rank 4 --classes "goldfish,lemon" -o start
    """
    from kind_train.start.from_dit import InitRequest
    from kind_train.start.init_session import run_init

    run_init(InitRequest(classes=split_names(classes), **options), as_json=as_json)
