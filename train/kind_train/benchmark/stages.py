"""Makes the checkpoint of a cell: its stages one after the other, each a run that a killed one goes on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

from kind_core.checkpoint_config import read_config
from kind_train.benchmark.cells import RUNS, Cell, TrainingRequest
from kind_train.benchmark.suite import Arm, Scale
from kind_train.benchmark.tasks import list_held
from kind_train.config import TAILORS, TrainConfig
from kind_train.device import pick_device
from kind_train.fit import fit_model
from kind_train.methods import adaptation_defaults, open_method
from kind_train.methods.method import Method
from kind_train.options_file import load_options
from kind_train.run.metrics import METRICS_NAME
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
    return next(
        (open_method(str(options.get("method", TAILORS))) for stage, options in arm.stages if stage == "adapt"), None
    )


def find_rank(options: Mapping[str, object], request: TrainingRequest) -> int | None:
    """Rank of the tailors whose budget a method is given: its own, else that of the decomposed base, if any.

    A dense base says nothing of it, and what its width would suggest is another budget than that of KIND beside it.
    """
    rank = options.get("tailor_rank")
    if rank is not None or request.checkpoint is None:
        assert rank is None or isinstance(rank, int)
        return rank
    return max(read_config(request.checkpoint).dit.ranks) or None


def find_need(arm: Arm) -> str | None:
    """The option that an arm is made of; None where it begins with photos alone."""
    stages = [stage for stage, _ in arm.stages]
    if not stages or stages[0] == "adapt":
        method = find_method(arm)
        is_dense = arm.start == "dense" if method is None else method.needs_dense
        return "--dense" if is_dense else "--checkpoint"
    if stages[0] == "shrink":
        return "--dense"
    return "--base-data" if stages[:2] == ["fit", "adapt"] else None


def make_checkpoint(cell: Cell, request: TrainingRequest, scale: Scale, images: int, output: Path) -> Made:
    """The checkpoint of a cell after `images` of its last stage."""
    made = Made(checkpoint=_start(cell.arm, request))
    last = len(cell.arm.stages) - 1
    previous: Path | None = None
    match: dict[str, object] = {}
    for number, (stage, options) in enumerate(cell.arm.stages):
        folder = output / RUNS / cell.name / f"{number}-{stage}"
        if stage == "shrink":
            previous, match = _shrink(cell, request, options, folder)
            made = Made(checkpoint=previous)
            continue
        size = images if number == last else scale.base_images
        given = _stage_options(cell, request, scale, stage, options, previous, is_last=number == last)
        given |= {} if stage != "fit" else match
        config = load_options(None, given | _amounts(size, scale) | {"output": str(folder)}, adaptation_defaults)
        made = _train(config, folder)
        previous = made.checkpoint
    return made


def _start(arm: Arm, request: TrainingRequest) -> Path:
    return (request.dense if arm.start == "dense" else request.checkpoint) or Path()


def _amounts(images: int, scale: Scale) -> dict[str, object]:
    return {
        "images": images,
        "batch_size": scale.batch_size,
        "save_every": max(scale.batch_size, images // scale.saves),
        "sample_every": max(images, 1) * 1000,
    }


def _stage_options(
    cell: Cell,
    request: TrainingRequest,
    scale: Scale,
    stage: str,
    options: Mapping[str, object],
    previous: Path | None,
    *,
    is_last: bool,
) -> dict[str, object]:
    """Options of a run; all arms of a task and seed are given the same photos, seed, batch size and device."""
    task, own = cell.task, dict(options)
    given: dict[str, object] = {**scale.options, "seed": cell.seed, "device": request.device}
    if is_last:
        given |= {"data": task.data, "classes": task.classes}
        given |= {"val_data": task.val_data} if task.val_data is not None else {}
    else:
        share = float(str(own.pop("share_of_classes", 1.0)))
        given |= {"data": str(request.base_data), "classes": _first_classes(request, share)}
    if stage == "adapt":
        method = open_method(str(own.get("method", TAILORS)))
        given["base"] = str(previous or (request.dense if method.needs_dense else request.checkpoint))
        if previous is None and (rank := find_rank(own, request)) is not None:
            given["tailor_rank"] = rank
    elif previous is not None:
        given["start_from"] = str(previous)
    else:
        begun = {"preset": request.preset, "size": request.size}
        given |= {name: value for name, value in begun.items() if value is not None}
    return given | own


def _first_classes(request: TrainingRequest, share: float) -> tuple[str, ...]:
    ids = list_held(str(request.base_data))
    return ids[: max(2, round(share * len(ids)))]


def _train(config: TrainConfig, folder: Path) -> Made:
    is_begun = (folder / STATE_NAME).exists()
    before = process_time()
    fit_model(config, resume=is_begun, force=not is_begun)  # of a cell that is made anew, weights alone are left
    lines = [json.loads(line) for line in (folder / METRICS_NAME).read_text(encoding="utf-8").splitlines()]
    curve = tuple((one["images"], one["held_out_loss"]) for one in lines if "held_out_loss" in one)
    speeds = [one["images_per_second"] for one in lines if "images_per_second" in one]
    seconds = config.batch_size / speeds[-1] if speeds else None
    spent = None if is_begun or pick_device(config.device).type != "cpu" else process_time() - before
    return Made(checkpoint=folder / LAST_NAME, curve=curve, seconds_per_step=seconds, processor_seconds=spent)


def _shrink(
    cell: Cell, request: TrainingRequest, options: Mapping[str, object], folder: Path
) -> tuple[Path, dict[str, object]]:
    """The smaller checkpoint, and what its training is told of the one that it was made of."""
    from kind_train.start.shrinking import ShrinkRequest, shrink_checkpoint

    assert request.dense is not None
    how: Any = options  # of `ShrinkRequest`, as the suite's file names them
    given = ShrinkRequest(
        source=request.dense,
        output=folder,
        force=True,
        data=cell.task.data,
        seed=cell.seed,
        device=request.device,
        **how,
    )
    made = shrink_checkpoint(given)
    if options["construction"] != "laptop-diff":
        return folder, {}
    return folder, {"match": str(request.dense), "match_blocks": made.origins}
