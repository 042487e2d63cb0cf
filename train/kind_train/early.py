"""What a command would end with, told before anything heavy is loaded: a slip costs no wait. No torch is loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from kind_core.checkpoint_config import read_any_config, read_config
from kind_core.classes import ClassInfo, resolve_class, resolve_classes
from kind_core.console import announce_loading
from kind_core.errors import ConfigError
from kind_train.benchmark.options import BenchmarkOptions
from kind_train.benchmark.results import require_results_folder
from kind_train.benchmark.suite import FewShotSuite, Suite, TrainingSuite
from kind_train.benchmark.tasks import read_task_file
from kind_train.class_guidance import scale_of_each
from kind_train.config import NEAREST, TrainConfig, check_timesteps
from kind_train.data.photo_source import Source
from kind_train.data.sources import check_file, peek_classes
from kind_train.evaluate.features import find_packages
from kind_train.evaluate.networks import CLASSIFIER_HINT, INCEPTION_HINT, NONE, require_file
from kind_train.evaluation import EvaluationRequest
from kind_train.places import is_cache, require_data, require_device
from kind_train.run.metrics import check_tracker
from kind_train.run.run_folder import check_run_folder
from kind_train.start.shape import Shape, check_inputs, pick_shape


def check_run(config: TrainConfig, *, resume: bool, force: bool) -> None:
    """Raise the KindError that a run would end with, as far as paths, names and the run folder tell it."""
    if os.environ.get("RANK", "0") == "0":  # of several processes the main one looks
        check_run_folder(Path(config.output), resume=resume, force=force)
    require_photos(config.data, config.classes)
    if config.val_data is not None:
        require_photos(config.val_data)
    check_tracker(config.report_to)
    require_device(config.device)
    if config.base is not None:
        if config.init_from not in (None, NEAREST):
            resolve_class(config.init_from, read_any_config(Path(config.base)).classes)
        announce_loading()  # some methods are asked with torch
    shape = pick_shape(config)  # reads the config of what it starts from
    check_options(config, shape)
    if not is_cache(config.data):
        check_inputs(shape, (3, shape.dit.sample_size, shape.dit.sample_size))


def check_recipe(config: TrainConfig, shape: Shape) -> None:
    """Raise ConfigError, naming both options, where one does not go with what is trained, or with the device."""
    from kind_train.device import pick_device, require_arithmetic

    check_options(config, shape)
    if config.match_classifier is not None:
        from kind_train.evaluate.small_classifier import read_classifier

        read_classifier(Path(config.match_classifier)).require_size(shape.dit.sample_size)
    require_arithmetic(config.precision, pick_device(config.device), is_compiled=config.compile)


def check_options(config: TrainConfig, shape: Shape) -> None:
    """The same without the device, which torch alone knows: no torch is loaded."""
    terms = {name: getattr(config, name) for name in ("perceptual", "repa", "match_photos") if getattr(config, name)}
    for name, weight in terms.items():
        if shape.dit.in_channels != 3 or is_cache(config.data):
            raise ConfigError(
                f"{name} is {weight:g}, but {_describe_data(config)} is of latents: the term looks at pictures",
                f"leave out --{name.replace('_', '-')}, or train on photos with --preset sample",
            )
    if terms:
        find_packages()
    if config.match_classifier is not None:
        require_file(Path(config.match_classifier), "--match-classifier", CLASSIFIER_HINT)
    if config.teacher is not None and config.class_guidance:
        scale_of_each(config.class_guidance, read_config(Path(config.teacher)).classes, 1.0)
    check_timesteps(shape.diffusion, timestep_mean=config.timestep_mean, timestep_std=config.timestep_std)


def _describe_data(config: TrainConfig) -> str:
    if is_cache(config.data):
        return f"data {config.data}"
    return f"preset {config.preset_name!r}" if config.base is None else f"checkpoint {config.base}"


def require_photos(path: str, classes: Sequence[str] | Sequence[ClassInfo] = ()) -> None:
    """Raise DataError or ClassNameError where what lies at `path` is no data, or has not the classes asked for.

    Photos are not looked for: what their folders and files are called says it.
    """
    require_data(path)
    place = Path(path)
    if place.is_file():
        check_file(place)
    if not place.is_dir() or is_cache(path):
        return
    held = peek_classes(place)
    if held is not None:
        Source(path=path, classes=held, labels=(), entries=lambda: iter(())).choose(classes)


def require_networks(classifier: Path | None, inception_weights: str | None) -> None:
    """Raise ConfigError where the file of a network that judges is not there."""
    if classifier is not None:
        require_file(classifier, "--classifier", CLASSIFIER_HINT)
    if inception_weights is not None and inception_weights != NONE:
        require_file(Path(inception_weights), "--inception-weights", INCEPTION_HINT)


def check_evaluation(request: EvaluationRequest, real: Path | None = None) -> None:
    """The same for an evaluation, beside photos or statistics of `real` ones."""
    require_networks(request.classifier, request.inception_weights)
    photos = {"data": request.data, "val_data": request.val_data}
    given = [name for name, path in photos.items() if path is not None]
    if real is None and len(given) < 2:
        raise ConfigError(
            "expected --data and --val-data, or --real", "give photos, or a file of kind-train statistics"
        )
    if real is not None and given:
        raise ConfigError(f"expected --real alone, not with --{given[0].replace('_', '-')}", "leave one out")
    if real is not None and not real.is_file():
        raise ConfigError(f"--real: there is no file {real}", "write it with kind-train statistics")
    wanted: Sequence[ClassInfo] = ()
    if request.checkpoint is not None:
        instead = (
            "kind-train adapt measures the held-out loss of such a model, as it trains; kind-export captions takes it"
        )
        known = read_config(request.checkpoint, of_captions=instead).classes
        wanted = [found.info for found in resolve_classes(request.classes, known)] or known
    if request.bundle is not None:
        from kind_runtimes.bundle import read_manifest

        held = read_manifest(request.bundle).classes
        wanted = () if request.classes else held
    for name in given:
        require_photos(str(photos[name]), wanted)
    require_device(request.device)


def check_benchmark(options: BenchmarkOptions, suite: Suite | TrainingSuite | FewShotSuite) -> None:
    """The same for a suite: one that trains, one that only draws, or few-shot."""
    suite.choose(options.methods)
    options.require_numbers()
    if isinstance(suite, FewShotSuite):
        options.require_few_shot()
    options.choose_checkpoint()
    require_results_folder(options.output)
    require_networks(options.classifier, options.inception_weights)
    if isinstance(suite, TrainingSuite) and (options.data is None) == (options.tasks is None):
        raise ConfigError("expected photos of new classes: one of --data and --tasks", "give --data photos/")
    if options.tasks is not None:
        read_task_file(options.tasks)
    for data in (options.data, options.val_data, options.base_data):
        if data is not None:
            require_photos(data)
    for checkpoint in (options.checkpoint, options.dense):
        if checkpoint is not None:
            read_config(checkpoint)
    require_device(options.device)
