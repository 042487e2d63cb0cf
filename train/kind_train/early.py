"""What a command would end with, told before anything heavy is loaded: a slip costs no wait. No torch is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from kind_core.checkpoint_config import read_config
from kind_core.errors import ConfigError
from kind_train.benchmark.options import BenchmarkOptions
from kind_train.config import TrainConfig
from kind_train.evaluate.features import find_packages
from kind_train.places import require_data, require_device
from kind_train.run.journal import check_tracker
from kind_train.run.run_folder import check_run_folder
from kind_train.start.shape import pick_shape


def check_run(config: TrainConfig, *, resume: bool, force: bool) -> None:
    """Raise the KindError that a run would end with, as far as paths, names and the run folder tell it."""
    if os.environ.get("RANK", "0") == "0":  # of several processes the main one looks
        check_run_folder(Path(config.output), resume=resume, force=force)
    for path in (config.data, config.val_data):
        if path is not None:
            require_data(path)
    check_tracker(config.report_to)
    if config.perceptual:
        find_packages()
    require_device(config.device)
    pick_shape(config)  # reads the config of what it starts from


def check_evaluation(
    *,
    data: Path | None,
    val_data: Path | None,
    real: Path | None,
    checkpoint: Path | None,
    bundle: Path | None,
    device: str,
) -> None:
    """The same for an evaluation, beside photos or statistics of `real` ones."""
    photos = {"data": data, "val_data": val_data}
    given = [name for name, path in photos.items() if path is not None]
    if real is None and len(given) < 2:
        raise ConfigError(
            "expected --data and --val-data, or --real", "give photos, or a file of kind-train statistics"
        )
    if real is not None and given:
        raise ConfigError(f"expected --real alone, not with --{given[0].replace('_', '-')}", "leave one out")
    if real is not None and not real.is_file():
        raise ConfigError(f"--real: there is no file {real}", "write it with kind-train statistics")
    for name in given:
        require_data(str(photos[name]))
    if checkpoint is not None:
        read_config(checkpoint)
    if bundle is not None:
        from kind_runtimes.bundle import read_manifest

        read_manifest(bundle)
    require_device(device)


def check_benchmark(options: BenchmarkOptions, *, is_trained: bool) -> None:
    """The same for a suite, one that trains or one that only draws."""
    if is_trained and (options.data is None) == (options.tasks is None):
        raise ConfigError("expected photos of new classes: one of --data and --tasks", "give --data photos/")
    for data in (options.data, options.val_data, options.base_data):
        if data is not None:
            require_data(data)
    for checkpoint in (options.checkpoint, options.dense):
        if checkpoint is not None:
            read_config(checkpoint)
    require_device(options.device)
