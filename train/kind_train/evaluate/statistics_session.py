"""`kind-train statistics`: photos in, one file of what the networks see of them out."""

from __future__ import annotations

from pathlib import Path

from kind_core.console import echo
from kind_core.console.tables import open_console, say
from kind_core.errors import ConfigError
from kind_core.files.staging import check_output, staged
from kind_train.data.photo_set import stream_photos
from kind_train.device import pick_device
from kind_train.display import show_progress
from kind_train.evaluate.judges import Judge, SecondJudge, open_judge
from kind_train.evaluate.networks import FeatureNetwork, open_networks
from kind_train.evaluate.statistics import STATISTICS, collect_statistics, save_statistics


def open_observers(
    judge: Judge, inception_weights: str | None, dinov2: str | None, device: str
) -> tuple[FeatureNetwork, ...]:
    """The judge, then the networks of published figures whose weights are given or cached."""
    return (SecondJudge(judge, "judge", ()), *open_networks(inception_weights, dinov2, device))


def run_statistics(
    data: str,
    output: Path,
    classes: tuple[str, ...],
    *,
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
    """See all photos of `data` once and write `output`; memory does not grow with their number."""
    for name, value, least in (("size", size, 1), ("keep", keep, 1), ("batch_size", batch_size, 1)):
        if value < least:
            raise ConfigError(f"{name} is {value}, expected {least} or more")
    check_output(output, STATISTICS, force=force)
    console = open_console(stderr=True)
    photos = stream_photos(
        data, size, classes=classes, part_size=batch_size, tell=lambda line: say(console, line, style="yellow")
    )
    chosen = str(pick_device(device))
    networks = open_observers(open_judge(classifier, chosen), inception_weights, dinov2, chosen)
    with show_progress(console, "photos") as update:
        found = collect_statistics(photos, networks, keep=keep, seed=seed, progress=update)
    with staged(output, STATISTICS, force=force) as temporary:
        save_statistics(temporary, found)
    seen = ", ".join(one.name for one in found.networks)
    echo(f"{output}  {sum(found.counts)} photos of {len(found.classes)} classes at {size} x {size}, seen by {seen}")
