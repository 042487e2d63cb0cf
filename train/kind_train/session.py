"""A whole training session as `kind-train fit` runs it: options, data, progress on stderr, result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from kind_core.config import preset
from kind_core.errors import DataError
from kind_train.config import TrainConfig, load_options
from kind_train.data import PhotoSet, load_photos, split_photos
from kind_train.trainer import BEST_NAME, Trainer, start_run_folder
from kind_train.trainer import Progress as StepProgress


@dataclass(frozen=True, kw_only=True, slots=True)
class FitResult:
    """Where the best checkpoint lies, and its held-out loss."""

    checkpoint: Path
    best_loss: float


def fit_model(config_file: Path | None, flags: Mapping[str, Any], *, resume: bool, force: bool) -> FitResult:
    """Train as the options say. A resumed run takes the options of its folder, under the flags."""
    if resume and config_file is None and flags.get("output"):
        options = Path(flags["output"]) / "options.yaml"
        config_file = options if options.exists() else None
    config = load_options(config_file, flags)
    console = Console(stderr=True)
    train, held_out = _load_data(config, console)
    start_run_folder(config, resume=resume, force=force)
    trainer = Trainer(config, train, held_out, resume=resume)
    count = sum(p.numel() for p in trainer.model.parameters())
    console.print(f"{len(train)} photos, {len(held_out)} held out, {len(train.classes)} classes; "
                  f"{count / 1e6:.2f}M parameters on {trainer.device}")  # fmt: skip
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[status]}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("images", total=config.num_steps * config.batch_size, status="")
        best = trainer.run(lambda p: bar.update(task, completed=p.images, status=_describe(p)))
    return FitResult(checkpoint=Path(config.output) / BEST_NAME, best_loss=best)


def _load_data(config: TrainConfig, console: Console) -> tuple[PhotoSet, PhotoSet]:
    size = preset(config.preset)[0].sample_size
    train = load_photos(Path(config.data), size, classes=config.classes, strict=config.strict)
    if config.val_data is None:
        parts = split_photos(train, config.val_fraction, config.seed)
    else:
        ids = tuple(info.id for info in train.classes)
        held_out = load_photos(Path(config.val_data), size, classes=ids, strict=config.strict)
        parts = (train, held_out)
    for photos in {id(p): p for p in (train, parts[1])}.values():
        for name in photos.skipped:
            console.print(f"skipped unreadable image {name}", style="yellow")
        if photos.skipped:
            console.print(f"{len(photos.skipped)} unreadable images skipped", style="yellow")
    if len(parts[0]) == 0:
        raise DataError("no photo is left to train on", "lower --val-fraction")
    return parts


def _describe(progress: StepProgress) -> str:
    left = timedelta(seconds=round(progress.seconds_left))
    held_out = "" if progress.held_out_loss is None else f" held-out {progress.held_out_loss:.4f}"
    return f"loss {progress.loss:.4f}{held_out} | {progress.images_per_second:.0f} images/s | {left} left"
