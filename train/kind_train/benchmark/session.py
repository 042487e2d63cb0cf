"""A suite as the command line runs it: what is done on stderr, the table on stdout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from kind_core.console import echo, echo_lines
from kind_core.console.tables import open_console, say
from kind_core.errors import ConfigError
from kind_train.benchmark.cell_scripts import write_script
from kind_train.benchmark.cells import cell_file, choose_cell
from kind_train.benchmark.options import BenchmarkOptions
from kind_train.benchmark.suite import FewShotScale, FewShotSuite, Named, Scale, Suite, TrainingSuite

Tell = Callable[[str], None]
Show = Callable[[Sequence[str]], None]  # the names of all cells
_C = TypeVar("_C", bound=Named)
_T = TypeVar("_T", bound=Named, contravariant=True)
_OF_TRAINING = ("tasks", "task_size", "val_data", "base_data", "preset", "size", "real", "images", "base_images",
                "batch_size", "seeds", "episodes", "dinov2", "steps", "guidance")  # fmt: skip


class _Runner(Protocol[_T]):
    """Makes the cells of a suite that trains."""

    def make(self, cell: _T, place: str) -> None: ...

    def write(self) -> None: ...


def run_benchmark(
    suite: Suite | TrainingSuite | FewShotSuite, options: BenchmarkOptions, *, show: Show | None = None
) -> None:
    """Make the cells that are missing, or the one of `cell`, and print the table of all; or only `show` them."""
    console = open_console(stderr=True)

    def tell(line: str) -> None:
        say(console, line)

    if isinstance(suite, FewShotSuite):
        _run_few_shot(suite, options, tell, show)
    else:
        options = replace(options, checkpoint=options.choose_checkpoint(), sample=None)
        if isinstance(suite, TrainingSuite):
            _run_training(suite, options, tell, show)
        else:
            _run_drawing(suite, options, tell, show)
    if show is None:
        echo_lines((options.output / "results.md").read_text(encoding="utf-8"))
        echo(str(options.output / "index.html"))


def _run_few_shot(suite: FewShotSuite, options: BenchmarkOptions, tell: Tell, show: Show | None) -> None:
    from kind_train.benchmark.few_shot.episodes import require_enough
    from kind_train.benchmark.few_shot.runner import FewShotRunner, list_few_shot
    from kind_train.benchmark.tasks import look_into

    scale = _fit_few_shot(suite.scales[options.scale], options)
    cells = list_few_shot(suite.choose(options.methods), scale)
    if show is not None:
        show([cell.name for cell in cells])
        return
    require_enough(str(options.data), *look_into(str(options.data)), scale)
    wanted = _choose_wanted(cells, options)
    _make_all(FewShotRunner(suite, scale, options, tell), wanted)


def _choose_wanted(cells: Sequence[_C], options: BenchmarkOptions) -> Sequence[_C]:
    return cells if options.cell is None else [choose_cell(cells, options.cell)]


def _make_all(runner: _Runner[_C], cells: Sequence[_C]) -> None:
    for place, cell in enumerate(cells, 1):
        runner.make(cell, f"{place} of {len(cells)}: ")
    runner.write()


def _fit_few_shot(scale: FewShotScale, options: BenchmarkOptions) -> FewShotScale:
    """The scale with what was given in its place."""
    amounts = {name: getattr(options, name) for name in ("size", "images", "batch_size", "episodes")}
    for name, value in amounts.items():
        least = 2 if name == "episodes" else 1
        if value is not None and value < least:
            raise ConfigError(f"{name} is {value}, expected {least} or more")
    given = {name: value for name, value in amounts.items() if value is not None}
    return replace(scale, **given, seeds=options.seeds or scale.seeds)


def _run_drawing(suite: Suite, options: BenchmarkOptions, tell: Tell, show: Show | None) -> None:
    from kind_samples import SAMPLES, sample_checkpoint
    from kind_train.benchmark.drawing import run_suite

    for name in _OF_TRAINING:
        if getattr(options, name) not in (None, ()):
            raise ConfigError(
                f"--{name.replace('_', '-')} is for suites that train, {suite.name!r} draws", "leave it out"
            )
    rows = suite.choose(options.methods)
    if show is not None:
        show([row.name for row in rows])
        return
    options = replace(
        options,
        checkpoint=options.checkpoint or sample_checkpoint(SAMPLES[0]),
        count=suite.counts[options.scale] if options.count is None else options.count,
    )
    run_suite(suite, options, _choose_wanted(rows, options), tell)


def _run_training(suite: TrainingSuite, options: BenchmarkOptions, tell: Tell, show: Show | None) -> None:
    from kind_train.benchmark.cells import list_cells_of
    from kind_train.benchmark.tasks import read_tasks
    from kind_train.benchmark.training import TrainingRunner, choose_arms

    tasks = read_tasks(options.tasks, options.data, options.val_data, options.task_size, tell)
    scale = _fit_scale(suite.scales[options.scale], options)
    arms = choose_arms(suite.choose(options.methods), options, tell)
    cells = list_cells_of(arms, tasks, scale)
    if show is not None:
        show([cell.name for cell in cells])
        return
    wanted = _choose_wanted(cells, options)
    _make_all(TrainingRunner(suite, arms, tasks, options, scale, tell), wanted)


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
        images=options.images or scale.images,
        base_images=options.base_images or scale.base_images,
        batch_size=options.batch_size or scale.batch_size,
        count=options.count or scale.count,
        seeds=options.seeds or scale.seeds,
    )
    points = tuple(point for point in scale.points if point < changed.images)
    return replace(changed, points=(*points, changed.images) if scale.points else ())


def print_cells(output: Path, names: Sequence[str]) -> None:
    """Number and name of each, and whether it is there."""
    for number, name in enumerate(names):
        echo(f"{number}  {name}  {'done' if cell_file(output, name).exists() else 'open'}")


def print_script(engine: str, command: Sequence[str], options: BenchmarkOptions, names: Sequence[str]) -> None:
    """A script that makes by `engine` the cells that are not there; `command` is what it adds `--cell NAME` to."""
    cells = [name for name in names if not cell_file(options.output, name).exists()]
    if not cells:
        raise ConfigError(f"all {len(names)} cells are in {options.output}", "write their table with --resume")
    script = write_script(
        engine,
        title=f"{len(cells)} cells of {options.output}",
        command=command,
        folder=Path.cwd(),
        cells=cells,
        wants_gpu=options.device.startswith("cuda"),
    )
    echo_lines(script)
