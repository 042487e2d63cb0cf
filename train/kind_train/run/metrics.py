"""What a run says of itself on the way; of its metrics a line of JSON for what was trained, and for each validation.

They go into metrics.jsonl, and where that is asked for to a tracker of accelerate, or into a CSV file, too.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kind_core.errors import CheckpointError, OutputError, TargetError
from kind_core.files.json_files import parse_json
from kind_core.files.regular_files import require_regular
from kind_core.files.staging import write_whole
from kind_train.config import TrainConfig

if TYPE_CHECKING:
    from kind_train.run.processes import Processes

METRICS_NAME = "metrics.jsonl"
CSV_NAME = "metrics.csv"
TRACKER_NAME = "tracker"
_COLUMNS = ("step", "images", "loss", "held_out_loss", "learning_rate", "gradient_norm", "images_per_second")
# What a tracker needs, as packages are imported and installed.
_PACKAGES = {"tensorboard": ("accelerate", "tensorboard"), "wandb": ("accelerate", "wandb"), "csv": ()}

OnMetrics = Callable[[Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What a progress display is told: after each step on a CPU, after every twentieth on a GPU."""

    step: int
    num_steps: int
    images: int
    loss: float
    images_per_second: float
    seconds_left: float
    held_out_loss: float | None
    learning_rate: float
    gradient_norm: float

    def metrics(self) -> dict[str, float]:
        """The line of metrics of what was trained since the last one; what is held out has lines of its own."""
        return {
            "step": self.step,
            "images": self.images,
            "loss": self.loss,
            "learning_rate": self.learning_rate,
            "gradient_norm": self.gradient_norm,
            "images_per_second": round(self.images_per_second, 2),
        }


def is_due(config: TrainConfig, step: int, every_images: int) -> bool:
    """Whether what is done every so many images is done after `step` steps."""
    size = config.batch_size
    return step * size // every_images > (step - 1) * size // every_images


def trim_metrics(folder: Path, step: int) -> None:
    """Forget the metrics of steps after `step`, which a run resumed from there writes again."""
    file = folder / METRICS_NAME
    if not file.exists():
        return
    kept = "".join(line for line, record in read_metrics(folder) if record["step"] <= step)
    if kept.encode() != file.read_bytes():
        write_whole(file, kept)


def read_metrics(folder: Path) -> list[tuple[str, dict[str, float]]]:
    """The whole lines of a run's metrics with their numbers; what a kill, a failing disk or a hand left is none."""
    file, found = folder / METRICS_NAME, []
    if not file.exists():
        return []
    try:
        require_regular(file)
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise CheckpointError(
            f"cannot read {file}: {error.strerror or error}", "remove it: the run needs none"
        ) from error
    for line in text.splitlines(keepends=True):
        with suppress(ValueError):
            data = parse_json(line)
            is_whole = line.endswith("\n") and isinstance(data, dict) and "step" in data
            if is_whole and all(isinstance(one, int | float) for one in data.values()):
                found.append((line, data))
    return found


def append_metrics(folder: Path, record: Mapping[str, float]) -> None:
    """Add one line to the run's metrics."""
    file = folder / METRICS_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(dict(record)) + "\n")
    except OSError as error:
        message = f"cannot write {file}: {error.strerror or error}"
        raise OutputError(message, "mend that, then continue with --resume") from error


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
        file = Path(config.output) / CSV_NAME
        _write_rows(file, [record for _, record in read_metrics(file.parent)], is_new=True)  # what the run has already
        yield lambda metrics: _write_rows(file, [metrics])
    else:
        tracker = _open_accelerate(config.report_to, config)
        try:
            yield lambda metrics: tracker.log(
                {name: value for name, value in metrics.items() if name != "step"}, step=int(metrics["step"])
            )
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
