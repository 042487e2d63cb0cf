"""`kind-export`: the command line of export. It parses, calls one library function and prints."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from kind_core.console import echo
from kind_core.console.commands import (
    OneLineUsageError,
    PlainGroup,
    completion_option,
    parse_interval,
    report_errors,
    split_names,
    split_rows,
)
from kind_core.console.vocabulary import PATH, Named
from kind_core.errors import ConfigError
from kind_core.precisions import PRECISIONS, list_precisions
from kind_core.samplers import SAMPLERS, list_samplers
from kind_export.request import BAKING_MODES, TARGETS
from kind_export.target_rows import TARGET_ROWS
from kind_runtimes.kits import KITS
from kind_samples import SAMPLES, sample_checkpoint

_sample_option = click.option(
    "--sample", type=Named(SAMPLES), help=f"Instead of a checkpoint: one that ships [{SAMPLES[0]}]."
)
_latents_option = click.option(
    "--latents-only", is_flag=True, help="Leave the autoencoder out: the app decodes the latents."
)
_steps_option = click.option("--steps", type=int, help="Sampler steps [the checkpoint's].")
_sampler_option = click.option("--sampler", type=Named(SAMPLERS), help=f"{list_samplers()} [the checkpoint's].")
_guidance_option = click.option("--guidance", type=float, help="Default guidance scale [the checkpoint's].")
_precision_option = click.option(
    "--precision", type=Named(PRECISIONS), help=f"{list_precisions()} [coreml fp16, the others fp32]."
)
_CONTEXT = {"help_option_names": ["-h", "--help"]}


class _ExportGroup(PlainGroup):
    """The export itself and its commands; a class that stands where a command is expected is told how to be asked."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            if error.possibilities:  # a command of a like name
                raise
            message = f"{args[0]!r} is no command; classes are given by --classes"
            asked = shlex.join(["kind-export", "--classes", args[0], "--target", "coreml"])
            raise OneLineUsageError(message, ctx, f"did you mean {asked}?") from error


@click.group(cls=_ExportGroup, invoke_without_command=True, context_settings=_CONTEXT)
@click.option("--classes", multiple=True, metavar="NAMES", help="Classes, by name or id (comma or repeated).")
@click.option(
    "--target",
    "targets",
    multiple=True,
    type=Named(dict.fromkeys((*TARGETS, "all", *TARGET_ROWS))),
    help="What to write (comma or repeated); all means the first three. litert needs its extra.",
)
@click.option("--checkpoint", type=PATH, help="Checkpoint folder, or hub:ORG/NAME[@REVISION] [the sample].")
@_sample_option
@click.option(
    "--from-diffusers",
    type=PATH,
    help="Instead of a checkpoint: a diffusers DiT, kept dense; a folder or hub:ORG/NAME.",
)
@_latents_option
@_steps_option
@_sampler_option
@_guidance_option
@_precision_option
@click.option("--blend", "blends", multiple=True, metavar="A+B", help="A class that opens several gates at once.")
@click.option("--guidance-interval", metavar="LO,HI", help="Guidance in this share of the steps only [0,1].")
@click.option("--max-rank", type=int, help="Cut the learngene's matrices to this rank (not exact) [no limit].")
@click.option("--energy", type=float, help="Cut ranks to this share of the singular values' squares (not exact) [1].")
@click.option(
    "--min-ios", type=int, metavar="[17|18]", default=17, show_default=True, help="Oldest iOS that runs the package."
)
@click.option(
    "--baking", type=Named(BAKING_MODES), default="auto", show_default=True, help="Modulation table in the program."
)
@click.option("--packs", is_flag=True, help="One base without classes, and a pack a class to download.")
@click.option("--class-functions", is_flag=True, help="Core ML with iOS 18: a function a class, shared weights.")
@click.option("--kit", "kits", multiple=True, type=Named(KITS), help="Add sources for an app.")
@click.option("--base", type=PATH, help="With --packs: only write packs that fit this base.")
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="NAME",
    help="Forecast for this device, by name or file [three phones]; kind-bench devices lists them.",
)
@click.option("--max-size", metavar="SIZE", help="Choose precision and ranks to stay within, such as 50MB.")
@click.option(
    "--max-step-ms", type=float, help="Choose so that a step takes no longer on --device, by forecast [no limit]."
)
@click.option(
    "--max-image-ms", type=float, help="The same for a picture, with fewer steps where that helps [no limit]."
)
@click.option("-o", "--output", type=PATH, help="Bundle to write [<classes>.kind].")
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@click.option("--force-steps", is_flag=True, help="Allow --steps that a distilled model was not trained for.")
@click.option("--strict", is_flag=True, help="Refuse programs of which more than 5 % runs off the fast path.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.version_option(package_name="kind-diffusion")
@completion_option("kind-export")
@click.pass_context
@report_errors
def main(
    context: click.Context, /, classes: tuple[str, ...], targets: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Export some classes of a decomposable model to phones: verified Core ML, ONNX and ExecuTorch programs.

    \b
    Examples:
      kind-export --classes panda --target coreml
      kind-export --sample photos-teacher --classes panda,koala --target all --steps 20 --guidance 2
      kind-export --classes panda,koala --target all --packs -o base.kind
      kind-export --classes lemon --packs --base base.kind
      kind-export --classes panda --target coreml --kit ios
      kind-export --sample photos-teacher --blend panda+koala --target onnx --guidance-interval 0.2,0.8
      kind-export --classes panda --target coreml --device a18 --max-size 2MB --max-step-ms 1
      kind-export --from-diffusers DiT-XL-2-256 --classes "golden retriever" --target onnx --latents-only
      kind-export --checkpoint hub:org/my-model --classes panda --target coreml
      kind-export --sample garments --classes sneaker --target onnx
      kind-export classes
      kind-export report panda.kind --device snapdragon-8-gen-3
    """
    if context.invoked_subcommand is not None:
        return
    from kind_export.budget import Budget, parse_size
    from kind_export.request import ExportRequest

    limits = {name: options.pop(name) for name in ("max_step_ms", "max_image_ms")}
    options["budget"] = Budget(max_size_bytes=parse_size(options.pop("max_size")), **limits)
    options["devices"] = split_names(options["devices"])
    options["blends"] = tuple(split_rows(options["blends"], "+"))
    options["guidance_interval"] = parse_interval(options["guidance_interval"])
    chosen, is_diffusers = _choose_checkpoint(options["checkpoint"], options.pop("sample"), options["from_diffusers"])
    options |= {"checkpoint": chosen, "from_diffusers": is_diffusers}
    options["kits"] = split_names(options["kits"])
    request = ExportRequest(classes=split_names(classes), targets=split_names(targets), **options)
    from kind_export.console import run_export, run_packs

    (run_packs if request.base is not None else run_export)(request, as_json=as_json)


@main.command()
@click.option("--checkpoint", type=PATH, help="Checkpoint folder [the shipped sample].")
@_sample_option
@click.option("--from-diffusers", type=PATH, help="Instead of a checkpoint: a diffusers DiT.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@report_errors
def classes(checkpoint: Path | None, sample: str | None, from_diffusers: Path | None, as_json: bool) -> None:
    """List the classes that a checkpoint holds; of one that draws from captions, its domains.

    \b
    Example:
      kind-export classes --checkpoint my-model
    """
    from kind_export.source import read_source_config

    config = read_source_config(*_choose_checkpoint(checkpoint, sample, from_diffusers))
    if as_json:
        echo(json.dumps([{"id": c.id, "names": list(c.names)} for c in config.classes]))
        return
    width = max(len(c.id) for c in config.classes)
    for info in config.classes:
        echo(f"{info.id:<{width}}  {', '.join(info.names)}")


@main.command()
@click.option("--checkpoint", type=PATH, required=True, help="Folder of kind-train init --from-pixart.")
@click.option("--domains", multiple=True, required=True, help="Domains, by name or id (comma or repeated).")
@click.option(
    "--target", "targets", multiple=True, type=Named((*TARGETS, "all")), help="What to write (comma or repeated)."
)
@click.option("--caption", type=PATH, help="Embedded caption to hold the gates with [drawn numbers].")
@_latents_option
@_steps_option
@_sampler_option
@_guidance_option
@_precision_option
@click.option("-o", "--output", type=PATH, required=True, help="Folder to write.")
@click.option("--force", is_flag=True, help="Replace an existing --output.")
@report_errors
def captions(domains: tuple[str, ...], targets: tuple[str, ...], caption: Path | None, **options: Any) -> None:
    """Export the step of a model that draws from captions, which takes their embedded words as two more inputs.

    \b
    Example:
      kind-export captions --checkpoint start --domains photo --target onnx -o photo.captions
    """
    from kind_export.request import ExportRequest

    request = ExportRequest(classes=split_names(domains), targets=split_names(targets), **options)
    from kind_export.console import run_captions

    run_captions(request, caption)


@main.command()
@click.argument("bundle", type=PATH)
@click.option("--device", "devices", multiple=True, metavar="NAME", help="Forecast for this device [three phones].")
@click.option("--json", "as_json", is_flag=True, help="Print the new report as JSON.")
@report_errors
def report(bundle: Path, devices: tuple[str, ...], as_json: bool) -> None:
    """Write the reports of BUNDLE anew: forecasts for other devices, and what was measured elsewhere since.

    \b
    Examples:
      kind-export report panda.kind --device a18 --device snapdragon-8-gen-3
      kind-bench import phone.json --bundle panda.kind && kind-export report panda.kind
    """
    from kind_bench.forecasting.devices import load_device
    from kind_runtimes.bundle import read_manifest

    read_manifest(bundle)  # a slip is told before torch is loaded
    for name in split_names(devices):
        load_device(name)
    echo("counting the work of the programs", err=True)
    from kind_export.report.collect import choose_devices, refresh_report

    data = refresh_report(bundle, choose_devices(split_names(devices)))
    echo(json.dumps(data) if as_json else f"report  {bundle / 'report.html'}")


@main.command()
@click.option("--remove", is_flag=True, help="Take the command out of optimum again.")
@report_errors
def register_optimum(remove: bool) -> None:
    """Add `optimum-cli export kind`, the same export as a command of optimum, to the optimum that is installed.

    \b
    Example:
      kind-export register-optimum && optimum-cli export kind --classes panda --target onnx
    """
    from kind_export.optimum_registration import register, unregister

    echo(f"removed  {unregister()}" if remove else f"written  {register()}")


def _choose_checkpoint(checkpoint: Path | None, sample: str | None, from_diffusers: Path | None) -> tuple[Path, bool]:
    """Where the weights are, and whether in a diffusers folder: the shipped sample's where nothing was given."""
    options = {"--checkpoint": checkpoint, "--sample": sample, "--from-diffusers": from_diffusers}
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise ConfigError(f"both {given[0]} and {given[1]} were given", "give one of them")
    checkpoint = from_diffusers or checkpoint or sample_checkpoint(SAMPLES[0] if sample is None else sample)
    return checkpoint, from_diffusers is not None
