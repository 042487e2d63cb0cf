"""Makes the checkpoint of a cell: its stages one after the other, each a run that a killed one goes on with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

from kind_core.checkpoint_config import read_config
from kind_train.benchmark.cells import RUNS, Cell
from kind_train.benchmark.options import BenchmarkOptions
from kind_train.benchmark.suite import Arm, Scale
from kind_train.benchmark.tasks import list_held
from kind_train.config import TAILORS, TrainConfig
from kind_train.device import pick_device
from kind_train.fit import fit_model
from kind_train.methods import adaptation_defaults, open_method
from kind_train.methods.method import Method
from kind_train.options_file import load_options
from kind_train.run.metrics import read_metrics
from kind_train.run.run_folder import LAST_NAME, STATE_NAME


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """A cell's checkpoint, and what its last run told: (images, held-out loss), and the seconds that a step took.

    `processor_seconds` are what the whole run took of the CPU, which other programs beside it do not change; None of
    one that was killed and went on, and on a GPU.
    """

    checkpoint: Path
    curve: tuple[tuple[int, float], ...] = ()
    seconds_per_step: float | None = None
    processor_seconds: float | None = None


def find_method(arm: Arm) -> Method | None:
    """How the arm adapts a base; None where it does not."""
    adapted = next((settings for stage, settings in arm.stages if stage == "adapt"), None)
    return None if adapted is None else open_method(str(adapted.get("method", TAILORS)))


def _find_origin(arm: Arm) -> str | None:
    """Which option says what the arm is made of, or is; None where it begins with photos."""
    stage, method = arm.stages[0][0] if arm.stages else "", find_method(arm)
    if stage == "fit":
        return None
    is_dense = stage == "shrink" or (arm.start == "dense" if method is None else method.needs_dense)
    return "dense" if is_dense else "checkpoint"


def find_base(arm: Arm, options: BenchmarkOptions) -> Path | None:
    """The checkpoint that the arm is made of, or is; None where it was not given, or the arm begins with photos."""
    origin = _find_origin(arm)
    base: Path | None = None if origin is None else getattr(options, origin)
    return base


def find_adapted(arm: Arm, options: BenchmarkOptions) -> tuple[Method, Path] | None:
    """How the arm adapts a base that was given, and that base; None of an arm that begins otherwise."""
    method, base = find_method(arm), find_base(arm, options)
    return None if method is None or base is None or arm.stages[0][0] != "adapt" else (method, base)


def find_rank(settings: Mapping[str, object], options: BenchmarkOptions) -> int | None:
    """Rank of the tailors whose budget a method is given: its own, else that of the decomposed base, if any.

    A dense base says nothing of it, and what its width would suggest is another budget than that of KIND beside it.
    """
    rank = settings.get("tailor_rank")
    if rank is not None or options.checkpoint is None:
        assert rank is None or isinstance(rank, int)
        return rank
    return max(read_config(options.checkpoint).dit.ranks) or None


def find_need(arm: Arm) -> str | None:
    """The option that an arm is made of; None where it begins with photos alone."""
    if (origin := _find_origin(arm)) is not None:
        return f"--{origin}"
    return "--base-data" if len(arm.stages) > 1 else None


def make_checkpoint(cell: Cell, options: BenchmarkOptions, scale: Scale, images: int) -> Made:
    """The checkpoint of a cell after `images` of its last stage."""
    made = Made(checkpoint=find_base(cell.arm, options) or Path())
    last = len(cell.arm.stages) - 1
    previous: Path | None = None
    match: dict[str, object] = {}
    for number, (stage, settings) in enumerate(cell.arm.stages):
        folder = options.output / RUNS / cell.name / f"{number}-{stage}"
        if stage == "shrink":
            match = _shrink(cell, options, settings, folder)
            made = Made(checkpoint=folder)
        else:
            size = images if number == last else scale.base_images
            given = _stage_options(cell, options, scale, stage, settings, previous, is_last=number == last)
            given |= match if stage == "fit" else {}
            given |= {
                "images": size,
                "batch_size": scale.batch_size,
                "save_every": max(scale.batch_size, size // scale.saves),
                "sample_every": max(size, 1) * 1000,
                "output": str(folder),
            }
            made = _train(load_options(None, given, adaptation_defaults), folder)
        previous = made.checkpoint
    return made


def _stage_options(
    cell: Cell,
    options: BenchmarkOptions,
    scale: Scale,
    stage: str,
    settings: Mapping[str, object],
    previous: Path | None,
    *,
    is_last: bool,
) -> dict[str, object]:
    """Options of a run; all arms of a task and seed are given the same photos, seed, batch size and device."""
    task, own = cell.task, dict(settings)
    given: dict[str, object] = {**scale.options, "seed": cell.seed, "device": options.device}
    if is_last:
        given |= {"data": task.data, "classes": task.classes}
        given |= {"val_data": task.val_data} if task.val_data is not None else {}
    else:
        ids, share = list_held(str(options.base_data)), float(str(own.pop("share_of_classes", 1.0)))
        given |= {"data": options.base_data, "classes": ids[: max(2, round(share * len(ids)))]}
    if stage == "adapt":
        given["base"] = str(previous or find_base(cell.arm, options))
        if previous is None and (rank := find_rank(own, options)) is not None:
            given["tailor_rank"] = rank
    elif previous is not None:
        given["start_from"] = str(previous)
    else:
        begun = {"preset": options.preset, "size": options.size}
        given |= {name: value for name, value in begun.items() if value is not None}
    return given | own


def _train(config: TrainConfig, folder: Path) -> Made:
    is_begun = (folder / STATE_NAME).exists()
    before = process_time()
    fit_model(config, resume=is_begun, force=not is_begun)  # of a cell that is made anew, weights alone are left
    lines = [record for _, record in read_metrics(folder)]
    curve = tuple((int(one["images"]), one["held_out_loss"]) for one in lines if "held_out_loss" in one)
    speeds = [one["images_per_second"] for one in lines if "images_per_second" in one]
    seconds = config.batch_size / speeds[-1] if speeds else None
    spent = None if is_begun or pick_device(config.device).type != "cpu" else process_time() - before
    return Made(checkpoint=folder / LAST_NAME, curve=curve, seconds_per_step=seconds, processor_seconds=spent)


def _shrink(cell: Cell, options: BenchmarkOptions, settings: Any, folder: Path) -> dict[str, object]:
    """Write the smaller checkpoint; what its training is told of the one that it was made of.

    `settings` are of a `ShrinkRequest`, as the suite's file names them.
    """
    from kind_train.start.shrinking import ShrinkRequest, shrink_checkpoint

    assert options.dense is not None
    data, device = cell.task.data, options.device
    made = shrink_checkpoint(
        ShrinkRequest(
            source=options.dense, output=folder, force=True, data=data, seed=cell.seed, device=device, **settings
        )
    )
    is_matched = settings["construction"] == "laptop-diff"
    return {"match": str(options.dense), "match_blocks": made.origins} if is_matched else {}
