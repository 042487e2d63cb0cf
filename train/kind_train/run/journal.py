"""Where a run's metrics go beside metrics.jsonl: a tracker of accelerate, or a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kind_core.errors import OutputError, TargetError
from kind_train.config import TrainConfig
from kind_train.run.metrics import read_metrics
from kind_train.run.run_folder import CSV_NAME, TRACKER_NAME

if TYPE_CHECKING:
    from kind_train.run.processes import Processes

_COLUMNS = ("step", "images", "loss", "held_out_loss", "learning_rate", "gradient_norm", "images_per_second")
# What a tracker needs, as packages are imported and installed.
_PACKAGES = {"tensorboard": ("accelerate", "tensorboard"), "wandb": ("accelerate", "wandb"), "csv": ()}

OnMetrics = Callable[[Mapping[str, float]], None]


def check_tracker(name: str | None) -> None:
    """Raise TargetError where a package of the tracker is missing, before anything is trained."""
    missing = [package for package in _PACKAGES.get(name or "csv", ()) if find_spec(package) is None]
    if missing:
        raise TargetError(f"--report-to {name} needs {' and '.join(missing)}", f"pip install {' '.join(missing)}")


@contextmanager
def tracked(config: TrainConfig, processes: Processes) -> Iterator[OnMetrics | None]:
    """What takes the lines of metrics for the tracker that the options name; None in all processes but the main one."""
    if config.report_to is None or not processes.is_main:
        yield None
    elif config.report_to == "csv":
        yield _open_csv(Path(config.output))
    else:
        tracker = _open_accelerate(config.report_to, config)
        try:
            yield lambda metrics: tracker.log(_without_step(metrics), step=int(metrics["step"]))
        finally:
            tracker.finish()


def _open_accelerate(name: str, config: TrainConfig) -> Any:
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # trackers ask it which process they are in
    kind = LOGGER_TYPE_TO_CLASS[name]
    run_name = Path(config.output).resolve().name
    folder = {"logging_dir": str(Path(config.output) / TRACKER_NAME)} if kind.requires_logging_directory else {}
    tracker = kind(run_name, **folder)
    tracker.start()
    tracker.store_init_configuration(
        {name: value for name, value in asdict(config).items() if isinstance(value, str | int | float)}
    )
    return tracker


def _without_step(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name != "step"}


def _open_csv(folder: Path) -> OnMetrics:
    """A table with a column a metric, which starts with what the run has already."""
    file = folder / CSV_NAME
    _write_rows(file, [record for _, record in read_metrics(folder)], is_new=True)
    return lambda metrics: _write_rows(file, [metrics])


def _write_rows(file: Path, rows: Sequence[Mapping[str, float]], *, is_new: bool = False) -> None:
    try:
        with file.open("w" if is_new else "a", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, _COLUMNS, restval="", extrasaction="ignore")
            if is_new:
                writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        message = f"cannot write {file}: {error.strerror or error}"
        raise OutputError(message, "mend that, then continue with --resume") from error
