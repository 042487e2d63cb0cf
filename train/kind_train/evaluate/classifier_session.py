"""`kind-train classifier`: photos in, a judge out, with what it gets right on stdout."""

from __future__ import annotations

from pathlib import Path

from kind_core.config.checks import require_seed
from kind_core.console import echo
from kind_core.console.tables import open_console, say
from kind_core.files.staging import check_output, staged
from kind_train.data.holding_out import describe_overlap, split_photos
from kind_train.data.photo_set import load_photos
from kind_train.display import show_progress
from kind_train.evaluate.small_classifier import CLASSIFIER, save_classifier, train_classifier


def run_classifier(
    data: str,
    val_data: str | None,
    output: Path,
    classes: tuple[str, ...],
    *,
    size: int,
    images: int,
    flip: bool,
    seed: int,
    force: bool,
) -> None:
    """Train on `data`, test on `val_data` or, without it, on half of `data`, and write the classifier to `output`."""
    require_seed(seed)
    check_output(output, CLASSIFIER, force=force)
    console = open_console(stderr=True)

    def tell(line: str) -> None:
        say(console, line, style="yellow")

    photos = load_photos(data, size, classes=classes, tell=tell)
    if val_data is None:
        train, test = split_photos(photos, 0.5, seed)
    else:
        train, test = photos, load_photos(val_data, size, classes=photos.classes, tell=tell)
        if (overlap := describe_overlap(train, test)) is not None:
            tell(overlap)
    with show_progress(console, "images") as update:
        network, info = train_classifier(train, test, images=images, flip=flip, seed=seed, progress=update)
    with staged(output, CLASSIFIER, force=force) as temporary:
        save_classifier(temporary, network, info)
    echo(f"{output}  {info.accuracy:.1%} right on {info.num_tested} photos, trained on {info.num_trained} others")
