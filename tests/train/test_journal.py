"""What a run tells of itself while it trains: lines of metrics, trackers, the plot of its losses, an estimate."""

from __future__ import annotations

import csv
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_train_trainer import assert_same_bits, everything, make_trainer, run
from tiny_training import make_config, make_photos, tiny_preset

from kind_core.config import preset
from kind_core.errors import ConfigError, TargetError
from kind_train.plots import draw_losses
from kind_train.run import metrics
from kind_train.run.metrics import check_tracker, read_metrics, tracked
from kind_train.run.processes import Processes
from kind_train.run.run_folder import RUN, start_run_folder
from kind_train.start.shape import pick_shape

FIGURES = ("loss", "learning_rate", "gradient_norm", "images_per_second")


def read_lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("tiny")
def test_every_report_is_a_line_of_metrics(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, warmup_images=24)
    losses = run(trainer)
    trained = [line for line in read_lines(tmp_path) if "loss" in line]
    assert [line["step"] for line in trained] == list(range(1, 13))
    assert [line["loss"] for line in trained] == losses
    assert [line["learning_rate"] for line in trained] == [trainer.config.learning_rate_at(step) for step in range(12)]
    assert all(line[name] > 0 for line in trained for name in FIGURES)
    held_out = [line for line in read_lines(tmp_path) if "held_out_loss" in line]
    assert [line["step"] for line in held_out] == [5, 10, 12]


@pytest.mark.usefixtures("tiny")
def test_an_estimate_changes_nothing(tmp_path: Path) -> None:
    trainer, other = make_trainer(tmp_path / "a"), make_trainer(tmp_path / "b")
    seconds = trainer.estimate_seconds()
    assert 0 < seconds < 60
    assert_same_bits(everything(trainer), everything(other))
    assert run(trainer) == run(other)
    assert_same_bits(everything(trainer), everything(other))


@pytest.mark.usefixtures("tiny")
def test_a_table_holds_the_run_from_its_start(tmp_path: Path) -> None:
    config = make_config(tmp_path, report_to="csv")
    run(make_trainer(tmp_path), stop_after=7)
    trainer = make_trainer(tmp_path, resume=True)
    with tracked(config, Processes()) as on_metrics:
        trainer.run(None, on_metrics)
    with (tmp_path / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    steps = [int(row["step"]) for row in rows if row["loss"]]
    assert steps == list(range(1, 13))
    assert [row["held_out_loss"] for row in rows if row["held_out_loss"]] == [
        str(line["held_out_loss"]) for line in read_lines(tmp_path) if "held_out_loss" in line
    ]


class FakeTracker:
    """As accelerate's: what it was given."""

    requires_logging_directory = True
    made: FakeTracker

    def __init__(self, run_name: str, logging_dir: str) -> None:
        self.run_name, self.folder, self.lines, self.is_over = run_name, logging_dir, [], False
        FakeTracker.made = self

    def start(self) -> None:
        self.options: dict[str, Any] = {}

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.options = values

    def log(self, values: dict[str, float], step: int) -> None:
        self.lines: list[tuple[int, dict[str, float]]]
        self.lines.append((step, values))

    def finish(self) -> None:
        self.is_over = True


def test_a_tracker_of_accelerate_is_told_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("accelerate.tracking").tracking.LOGGER_TYPE_TO_CLASS, "tensorboard", FakeTracker)
    config = make_config(tmp_path / "run", report_to="tensorboard")
    with tracked(config, Processes()) as on_metrics:
        assert on_metrics is not None
        on_metrics({"step": 3, "images": 12, "loss": 0.5})
        tracker = FakeTracker.made
        assert not tracker.is_over
    assert (tracker.run_name, tracker.folder) == ("run", str(tmp_path / "run" / "tracker"))
    assert tracker.lines == [(3, {"images": 12, "loss": 0.5})]
    assert (tracker.options["learning_rate"], tracker.options["batch_size"]) == (1e-2, 4)
    assert tracker.is_over


def test_only_the_main_process_tracks(tmp_path: Path) -> None:
    with tracked(make_config(tmp_path, report_to="csv"), Processes(rank=1, count=2)) as on_metrics:
        assert on_metrics is None


def test_a_package_that_is_missing_is_told_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    check_tracker(None)
    check_tracker("csv")
    monkeypatch.setattr(metrics, "find_spec", lambda name: None if name == "wandb" else find_spec(name))
    with pytest.raises(TargetError, match="--report-to wandb needs wandb") as caught:
        check_tracker("wandb")
    assert caught.value.hint == "pip install wandb"


def test_a_plot_shows_both_losses(tmp_path: Path) -> None:
    lines: list[dict[str, float]] = [{"step": i, "images": 4 * i, "loss": 2 / (1 + i)} for i in range(1, 300)]
    lines += [{"step": i, "images": 4 * i, "held_out_loss": 3 / (1 + i)} for i in (100, 200)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    draw_losses([record for _, record in read_metrics(tmp_path)], tmp_path / "losses.png")
    with Image.open(tmp_path / "losses.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)[48:420, 91:930]
    blue, red = (pixels == (31, 95, 168)).all(axis=-1), (pixels == (200, 64, 31)).all(axis=-1)
    rows = [blue[:, column].nonzero()[0] for column in (100, 400, 800)]
    assert all(len(row) for row in rows)
    assert rows[0].mean() < rows[1].mean() < rows[2].mean()  # it falls
    assert 10 < red.sum() < 5000


def test_a_run_of_one_step_has_no_plot(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "images": 4, "loss": 1.0}\n')
    draw_losses([record for _, record in read_metrics(tmp_path)], tmp_path / "losses.png")
    assert not (tmp_path / "losses.png").exists()


def test_what_a_run_writes_may_be_replaced_by_force(tmp_path: Path) -> None:
    start_run_folder(make_config(tmp_path), resume=False, force=False)
    for name in ("metrics.jsonl", "metrics.csv", "losses.png", "tracker/run/events.out"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert RUN.find_misfit(tmp_path) is None


def test_photos_may_have_another_size_than_the_presets() -> None:
    dit, _ = preset("sample")
    assert pick_shape(make_config(Path("run"), size=48)).dit.sample_size == 48
    assert pick_shape(make_config(Path("run"))).dit == dit
    with pytest.raises(ConfigError, match=f"size is 47, expected a multiple of {dit.patch_size}"):
        pick_shape(make_config(Path("run"), size=47))
    with pytest.raises(ConfigError, match="works on latents"):
        pick_shape(make_config(Path("run"), size=64, preset="kind-b/2"))
    with pytest.raises(ConfigError, match="--start-from says the size"):
        pick_shape(make_config(Path("run"), size=64, start_from="x"))


@pytest.mark.usefixtures("tiny")
def test_a_run_of_another_size_is_not_gone_on_with(tmp_path: Path) -> None:
    assert tiny_preset("")[0].sample_size == 8
    run(make_trainer(tmp_path, size=8))
    with pytest.raises(ConfigError, match="was trained with size 8, not 16"):
        make_trainer(tmp_path, make_photos(size=16), size=16, resume=True)
