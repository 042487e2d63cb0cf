"""A suite as the command line runs it: what is done on stderr, the table on stdout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from kind_core.console import echo, echo_lines
from kind_core.console.tables import open_console, say
from kind_core.errors import ConfigError
from kind_train.benchmark.cell_scripts import SCRIPTS, CellCommands
from kind_train.benchmark.cells import CELLS, choose_cell
from kind_train.benchmark.few_shot.suite import FewShotArm, FewShotScale, FewShotSuite
from kind_train.benchmark.options import BenchmarkOptions
from kind_train.benchmark.suite import Arm, Row, Scale, Suite, TrainingSuite

Tell = Callable[[str], None]
Show = Callable[[Sequence[str]], None]  # the names of all cells
_OF_TRAINING = ("tasks", "task_size", "val_data", "base_data", "preset", "size", "real", "images", "base_images",
                "batch_size", "seeds", "episodes", "dinov2", "steps", "guidance")  # fmt: skip


def run_benchmark(
    suite: Suite | TrainingSuite | FewShotSuite,
    chosen: Sequence[Row | Arm | FewShotArm],
    options: BenchmarkOptions,
    *,
    show: Show | None = None,
) -> None:
    """Make the cells that are missing, or the one of `cell`, and print the table of all; or only `show` them."""
    console = open_console(stderr=True)

    def tell(line: str) -> None:
        say(console, line)

    if isinstance(suite, FewShotSuite):
        _run_few_shot(suite, [one for one in chosen if isinstance(one, FewShotArm)], options, tell, show)
        return
    options = replace(options, checkpoint=options.choose_checkpoint(), sample=None)
    if isinstance(suite, TrainingSuite):
        _run_training(suite, [one for one in chosen if isinstance(one, Arm)], options, tell, show)
    else:
        _run_drawing(suite, [one for one in chosen if isinstance(one, Row)], options, tell, show)


def _run_few_shot(
    suite: FewShotSuite, arms: Sequence[FewShotArm], options: BenchmarkOptions, tell: Tell, show: Show | None
) -> None:
    from kind_train.benchmark.few_shot.episodes import require_enough
    from kind_train.benchmark.few_shot.runner import FewShotRunner, list_few_shot

    scale = _fit_few_shot(suite.scales[options.scale], options)
    cells = list_few_shot(arms, scale)
    if show is not None:
        show([cell.name for cell in cells])
        return
    data = str(options.data)
    require_enough(data, scale)
    wanted = cells if options.cell is None else [choose_cell(cells, options.cell)]
    runner = FewShotRunner(
        suite,
        scale,
        str(options.base_data),
        data,
        options.output,
        device=options.device,
        resume=options.resume or options.cell is not None,
        tell=tell,
    )
    for place, cell in enumerate(wanted, 1):
        runner.make(cell, place=f"{place} of {len(wanted)}: ")
    runner.write()
    _print_results(options.output)


def _fit_few_shot(scale: FewShotScale, options: BenchmarkOptions) -> FewShotScale:
    """The scale with what was given in its place."""
    amounts = {name: getattr(options, name) for name in ("size", "images", "batch_size", "episodes")}
    for name, value in amounts.items():
        least = 2 if name == "episodes" else 1
        if value is not None and value < least:
            raise ConfigError(f"{name} is {value}, expected {least} or more")
    given = {name: value for name, value in amounts.items() if value is not None}
    return replace(scale, **given, seeds=options.seeds or scale.seeds)


def _run_drawing(suite: Suite, rows: Sequence[Row], options: BenchmarkOptions, tell: Tell, show: Show | None) -> None:
    from kind_train.benchmark.class_agnostic import Request
    from kind_train.benchmark.runner import run_suite

    for name in _OF_TRAINING:
        if getattr(options, name) not in (None, ()):
            raise ConfigError(
                f"--{name.replace('_', '-')} is for suites that train, {suite.name!r} draws", "leave it out"
            )
    if show is not None:
        show([row.name for row in rows])
        return
    checkpoint = options.checkpoint
    if checkpoint is None:
        from kind_samples import SAMPLES, sample_checkpoint

        checkpoint = sample_checkpoint(SAMPLES[0])
    rows = rows if options.cell is None else [choose_cell(rows, options.cell)]
    request = Request(
        checkpoint=checkpoint,
        dense=options.dense,
        data=options.data,
        count=suite.counts[options.scale] if options.count is None else options.count,
        seed=options.seed,
        device=options.device,
    )
    run_suite(
        suite,
        request,
        rows,
        options.output,
        scale=options.scale,
        classifier=options.classifier,
        inception_weights=options.inception_weights,
        resume=options.resume or options.cell is not None,
        tell=tell,
    )
    _print_results(options.output)


def _run_training(
    suite: TrainingSuite,
    arms: Sequence[Arm],
    options: BenchmarkOptions,
    tell: Tell,
    show: Show | None,
) -> None:
    from kind_train.benchmark.cells import TrainingRequest, list_cells_of
    from kind_train.benchmark.tasks import read_tasks
    from kind_train.benchmark.training import TrainingRunner, choose_arms, write_training

    tasks = read_tasks(options.tasks, options.data, options.val_data, options.task_size, tell)
    request = TrainingRequest(
        tasks=tasks,
        checkpoint=options.checkpoint,
        dense=options.dense,
        base_data=options.base_data,
        preset=options.preset,
        size=options.size,
        real=options.real,
        classifier=options.classifier,
        inception_weights=options.inception_weights,
        dinov2=options.dinov2,
        steps=options.steps,
        guidance=options.guidance,
        seed=options.seed,
        device=options.device,
    )
    scale, output = _fit_scale(suite.scales[options.scale], options), options.output
    arms = choose_arms(arms, request, tell)
    cells = list_cells_of(arms, tasks, scale)
    if show is not None:
        show([cell.name for cell in cells])
        return
    wanted = cells if options.cell is None else [choose_cell(cells, options.cell)]
    # cells are made by many commands at a time, none of which is the first
    runner = TrainingRunner(
        suite, arms, request, scale, output, resume=options.resume or options.cell is not None, tell=tell
    )
    for place, cell in enumerate(wanted, 1):
        runner.make(cell, place=f"{place} of {len(wanted)}: ")
    write_training(runner, list_cells_of(suite.arms, tasks, scale))
    _print_results(output)


def _fit_scale(scale: Scale, options: BenchmarkOptions) -> Scale:
    """The scale with what was given in its place; points beyond the images are left out."""
    amounts = {"images": options.images, "base_images": options.base_images, "batch_size": options.batch_size}
    for name, value in amounts.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}, expected 1 or more")
    if options.episodes is not None:
        raise ConfigError("--episodes is for few-shot", "leave it out")
    if options.base_images is not None and not scale.base_images:
        raise ConfigError("--base-images is for num-classes, which trains bases of its own", "leave it out")
    if options.count is not None and options.count < 2 and scale.count:
        raise ConfigError(f"count is {options.count}, expected 2 or more")
    changed = replace(
        scale,
        images=scale.images if options.images is None else options.images,
        base_images=scale.base_images if options.base_images is None else options.base_images,
        batch_size=scale.batch_size if options.batch_size is None else options.batch_size,
        count=scale.count if options.count is None else options.count,
        seeds=options.seeds or scale.seeds,
    )
    points = tuple(point for point in scale.points if point < changed.images)
    return replace(changed, points=(*points, changed.images) if scale.points else ())


def print_cells(output: Path, names: Sequence[str]) -> None:
    """Number and name of each, and whether it is there."""
    for number, name in enumerate(names):
        echo(f"{number}  {name}  {'done' if _is_done(output, name) else 'open'}")


def print_script(engine: str, command: Sequence[str], options: BenchmarkOptions, names: Sequence[str]) -> None:
    """A script that makes by `engine` the cells that are not there; `command` is what it adds `--cell NAME` to."""
    cells = [name for name in names if not _is_done(options.output, name)]
    if not cells:
        raise ConfigError(f"all {len(names)} cells are in {options.output}", "write their table with --resume")
    asked = CellCommands(
        title=f"{len(cells)} cells of {options.output}",
        command=command,
        folder=Path.cwd(),
        cells=cells,
        wants_gpu=options.device.startswith("cuda"),
    )
    echo_lines(SCRIPTS[engine](asked))


def _is_done(output: Path, name: str) -> bool:
    return (output / CELLS / f"{name}.npz").exists()


def _print_results(output: Path) -> None:
    echo_lines((output / "results.md").read_text(encoding="utf-8"))
    echo(str(output / "index.html"))
