"""A whole training session as `kind-train fit` runs it: options, data, progress on stderr, result."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from rich.console import Console

from kind_core.classes import ClassInfo
from kind_core.console.tables import open_console, say
from kind_core.errors import ConfigError, DataError
from kind_core.files.staging import claimed
from kind_core.stopping import describe_ignored, hold_interrupts
from kind_train.config import TrainConfig
from kind_train.data.captions.store import WordStore
from kind_train.data.latents import is_cache, open_cache
from kind_train.data.photo_set import TrainingSet, load_photos
from kind_train.data.photo_source import describe_unasked
from kind_train.data.training_set import SplitRecord, describe_overlap, read_split, split_and_record
from kind_train.display import show_progress
from kind_train.early import check_recipe
from kind_train.run import run_folder
from kind_train.run.metrics import Progress, tracked
from kind_train.run.processes import Processes, joined_processes
from kind_train.run.trainer import Trainer
from kind_train.start.shape import check_inputs, pick_shape
from kind_train.start.starting import require_same_kind


@dataclass(frozen=True, kw_only=True, slots=True)
class FitResult:
    """Where the best checkpoint lies, and its held-out loss, None where no photo was held out.

    Of several processes the main one speaks.
    """

    checkpoint: Path
    best_loss: float | None
    is_main: bool = True


def fit_model(config: TrainConfig, *, resume: bool = False, force: bool = False) -> FitResult:
    """Train as `config` says, into the folder `config.output`; `resume` goes on with the run that lies there.

    Raises KindError for what cannot be trained, before anything is written, and KeyboardInterrupt at Ctrl-C or
    SIGTERM, after a save and after saying on stderr how to go on.
    """
    folder = Path(config.output)
    with (
        joined_processes(config.device) as processes,
        claimed(folder, run_folder.RUN) if processes.is_main else nullcontext(),
    ):
        console = open_console(stderr=True, quiet=not processes.is_main)
        if (ignored := describe_ignored()) is not None:
            say(console, ignored)
        if processes.is_main:
            run_folder.check_run_folder(folder, resume=resume, force=force)
        try:
            return _fit(config, console, processes, resume=resume, force=force)
        except KeyboardInterrupt:
            say(console, _describe_interruption(folder))
            raise


def _fit(config: TrainConfig, console: Console, processes: Processes, *, resume: bool, force: bool) -> FitResult:
    shape = pick_shape(config)
    check_recipe(config, shape)
    train, held_out, record = _load_split(config, console, resume=resume)
    processes.wait()  # until the main one has mended what a killed run left
    goes_on = resume and run_folder.has_state(Path(config.output))
    trainer = Trainer(config, train, held_out, resume=goes_on, processes=processes)
    if resume and not goes_on:
        trainer.best_loss = run_folder.read_best_loss(Path(config.output))
    if not len(held_out) and (record is None or record.fraction > 0):
        message = "none of the photos that this run held out is there any more"
        raise DataError(message, "put them back or give --val-data")
    if processes.is_main:
        held_out_as = None if record is None else record.to_dict()
        run_folder.start_run_folder(config, resume=resume, force=force, held_out=held_out_as)
    count = sum(p.numel() for p in trainer.model.parameters())
    say(
        console,
        f"{len(train)} photos, {len(held_out)} held out, {len(train.classes)} classes; "
        f"{count / 1e6:.2f}M parameters on {trainer.device}",
    )
    say(console, _describe_rates(config))
    if not resume and (news := shape.describe_new(train.classes)) is not None:
        say(console, news, style="yellow")
    if trainer.model_config.provenance.training:
        say(console, f"trained {trainer.model_config.provenance.training}")
    if trainer.step >= config.num_steps:
        say(console, f"step {trainer.step} of {config.num_steps} is done already, raise --images to go on")
        _complete(trainer, processes)
    elif resume and not goes_on:
        say(console, "the run was ended before its first save: it begins again")
    elif resume:
        say(console, f"resumed at step {trainer.step} of {config.num_steps}")
    if trainer.step < config.num_steps:
        say(console, _describe_estimate(trainer.estimate_seconds(), config.images - trainer.step * config.batch_size))
    with tracked(config, processes) as on_metrics, show_progress(console, "images") as update:
        total = config.num_steps * config.batch_size
        best_loss = trainer.run(lambda progress: update(progress.images, total, _describe(progress)), on_metrics)
    return FitResult(
        checkpoint=Path(config.output) / run_folder.BEST_NAME,
        best_loss=best_loss if len(held_out) else None,
        is_main=processes.is_main,
    )


def _complete(trainer: Trainer, processes: Processes) -> None:
    """Write what a kill right after the last state of a run left out: the checkpoint and the pictures of its end."""
    products, images = trainer.products, trainer.images
    is_there = torch.tensor([products.has_last(images), products.has_samples(images)], device=trainer.device)
    has_last, has_samples = processes.copy_from_main(is_there).tolist()
    if has_last and has_samples:
        return
    model = trainer.averaged_model()
    if processes.is_main and not has_last:
        with hold_interrupts():
            products.save_checkpoint(run_folder.LAST_NAME, model, trainer.training())
    if processes.is_main and not has_samples:
        products.draw_samples(model, images, trainer.device)


def _load_split(
    config: TrainConfig, console: Console, *, resume: bool
) -> tuple[TrainingSet, TrainingSet, SplitRecord | None]:
    """What is trained on, what is held out, and how that was decided where the run itself did."""
    store = None if config.text_embeddings is None else WordStore(Path(config.text_embeddings))
    train = _load_set(config, console, config.data, config.classes, store)
    if config.val_data is not None:
        held_out = _load_set(config, console, config.val_data, train.classes, store)
        require_same_kind(train, held_out)
        if (overlap := describe_overlap(train, held_out)) is not None:
            say(console, overlap, style="yellow")
        return train, held_out, None
    record = read_split(Path(config.output), config.val_fraction) if resume else None
    if record is not None and record.photos != len(train):
        say(console, f"{len(train)} photos are there, {record.photos} when the run was started", style="yellow")
    if resume and record is None and run_folder.has_state(Path(config.output)):
        say(
            console,
            "the run does not tell which photos it held out: some of those held out now were trained on",
            style="yellow",
        )
    return split_and_record(train, config.val_fraction, config.seed, record)


def _load_set(
    config: TrainConfig,
    console: Console,
    path: str,
    classes: tuple[str, ...] | tuple[ClassInfo, ...],
    store: WordStore | None,
) -> TrainingSet:
    if is_cache(path):
        latents = open_cache(Path(path))
        if config.flip and not latents.settings.flip:
            raise ConfigError(f"{path} holds no mirror images", "train with --no-flip, or cache with --flip")
        if (unasked := describe_unasked(path, latents.classes, latents.labels.tolist(), classes)) is not None:
            say(console, unasked, style="yellow")
        chosen = latents.choose(classes)
        return chosen if store is None else chosen.told(store)
    shape = pick_shape(config)
    check_inputs(shape, (3, shape.dit.sample_size, shape.dit.sample_size))
    with show_progress(console, f"reading {path}") as update:
        return load_photos(
            path,
            shape.dit.sample_size,
            classes=classes,
            strict=config.strict,
            progress=lambda done, total: update(done, total, ""),
            tell=lambda line: say(console, line, style="yellow"),
            output=Path(config.output),
            store=store,
        )


def _describe_rates(config: TrainConfig) -> str:
    """What of the options decides how well it trains, most of which the preset says."""
    parts = [
        f"{config.images:,} images in batches of {config.batch_size}",
        f"learning rate {config.learning_rate:g}",
        f"warm-up over {config.warmup_images:,} images" if config.warmup_images else "no warm-up",
        f"falling over the last {config.decay_fraction:.0%}" if config.decay_fraction else "constant to the end",
        f"average {config.ema_decay:g}",
    ]
    terms = {"perceptual": config.perceptual, "REPA": config.repa, "likeness to photos": config.match_photos}
    return ", ".join(parts + [f"{name} {weight:g}" for name, weight in terms.items() if weight])


def _describe_estimate(seconds: float, images: int) -> str:
    """Before the first step: so long, without checkpoints and sample grids."""
    hours = f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{max(seconds, 1) / 60:.1f} minutes"
    return f"about {hours} for {images} images, by one step that was tried"


def _describe(progress: Progress) -> str:
    left = timedelta(seconds=round(progress.seconds_left))
    held_out = "" if progress.held_out_loss is None else f" held-out {progress.held_out_loss:.4f}"
    return f"loss {progress.loss:.4f}{held_out} | {progress.images_per_second:.0f} images/s | {left} left"


def _describe_interruption(folder: Path) -> str:
    step = run_folder.read_step(folder)
    if step is None:
        again = "start again" if (folder / run_folder.OPTIONS_NAME).exists() else "nothing was written"
        return f"interrupted before the first checkpoint, {again}"
    return f"interrupted; the checkpoint of step {step} in {folder} is whole, continue with --resume"
