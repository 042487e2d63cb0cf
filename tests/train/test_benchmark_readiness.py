"""What a training suite is given: what does not fit is told before anything is trained, what fits is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from mean_judge import Means
from tiny_suites import FAST, call, read_lines
from tiny_training import TINY_DIT, make_photos, write_folder, write_parquet

from kind_core.costs.methods import dense_twin, find_cost
from kind_core.errors import DataError
from kind_train.benchmark.tasks import read_tasks
from kind_train.cli import main
from kind_train.evaluate.small_classifier import ClassifierInfo
from kind_train.methods import open_method

pytestmark = pytest.mark.usefixtures("one_thread")
GIVEN = ("--methods", "svdiff", "--images", 4, "--batch-size", 4, "--count", 4, *FAST[:4])


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that trains fails."""
    monkeypatch.setattr("kind_train.benchmark.stages.fit_model", None)


def write_statistics(data: Path, file: Path, *options: Any) -> Path:
    words = ("statistics", "--data", data, "-o", file, *FAST[:4], *options)
    result = CliRunner().invoke(main, [*map(str, words)])
    assert result.exit_code == 0, result.output
    return file


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--size", 8, "--classes", "class_0"), "holds statistics of other photos: 1 classes, 'class_1' among those"),
        (("--size", 16), "holds statistics of photos at 16 x 16, the pictures are 8 x 8"),
    ],
)
def test_statistics_of_others_are_refused_first(
    options: tuple[Any, ...], found: str, bases: tuple[Any, ...], tmp_path: Path
) -> None:
    real = write_statistics(bases[5], tmp_path / "real.safetensors", *options)
    output = tmp_path / "results"
    assert found in call("novel-classes", *bases, *GIVEN, "--real", real, "--output", output)
    assert not output.exists()


@pytest.mark.usefixtures("untrained")
def test_statistics_of_another_network_are_refused_first(
    bases: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = write_statistics(bases[5], tmp_path / "real.safetensors", "--size", 8)
    monkeypatch.setattr(Means, "sha256", "1" * 64)
    given = ("novel-classes", *bases, *GIVEN, "--real", real, "--output", tmp_path / "results")
    assert "was seen by means (00000000), not by means (11111111)" in call(*given)
    assert not (tmp_path / "results").exists()


@pytest.mark.usefixtures("untrained")
def test_a_judge_of_another_size_is_refused_first(
    bases: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "judge").write_bytes(b"")
    info = ClassifierInfo(size=32, classes=(), accuracy=1.0, num_trained=1, num_tested=1)
    monkeypatch.setattr("kind_train.benchmark.training.read_classifier", lambda path: info)
    given = ("novel-classes", *bases, *GIVEN, "--classifier", tmp_path / "judge", "--output", tmp_path / "results")
    assert "the pictures are 8 x 8, the classifier's are 32 x 32" in call(*given)
    assert not (tmp_path / "results").exists()


def test_networks_and_the_seed_of_pictures_are_those_given(
    bases: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def observe(judge: Any, inception: str | None, dinov2: str | None, device: str) -> tuple[Any, ...]:
        asked.append((inception, dinov2))
        return (judge,)

    monkeypatch.setattr("kind_train.benchmark.training.open_observers", observe)
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"")
    given = ("novel-classes", *bases, *GIVEN[:8], "--inception-weights", weights, "--dinov2", "folder")
    pictures = {}
    for seed in (0, 1):
        call(*given, "--seed", seed, "--output", tmp_path / str(seed))
        with np.load(tmp_path / str(seed) / "cells" / "svdiff--task--0.npz") as cell:
            pictures[seed] = cell["pictures"]
    assert asked == [(str(weights), "folder")] * 2
    assert pictures[0].shape == (12, 8, 8, 3)  # four of each of three classes
    assert not np.array_equal(pictures[0], pictures[1])
    (line,) = read_lines(tmp_path / "0")
    assert line["processor_seconds"] > 0
    assert "holds results of seed 0, not 1" in call(*given, "--seed", 1, "--output", tmp_path / "0", "--resume")


def test_every_method_is_given_the_budget_of_the_tailors_beside_it(bases: tuple[Any, ...], tmp_path: Path) -> None:
    """A dense base has no rank of tailors, and its width suggests another one."""
    call("gpu-time", *bases, *FAST[6:], "--methods", "tailors,svdiff", "--output", tmp_path / "time")
    call("novel-classes", *bases, *GIVEN[2:], "--methods", "svd-lora", "--output", tmp_path / "results")
    for run in ("time/runs/svdiff", "results/runs/svd-lora"):
        options = (tmp_path / f"{run}--task--0" / "0-adapt" / "options.yaml").read_text()
        assert f"tailor_rank: {TINY_DIT.tailor_rank}\n" in options
    (line,) = read_lines(tmp_path / "results")
    assert line["trained"] == find_cost("svd-lora").trained(TINY_DIT, 3)
    assert line["trained"] > find_cost("svd-lora").trained(open_method("svd-lora").plan(dense_twin(TINY_DIT)), 3)


def test_classes_without_photos_are_told_and_left_out(tmp_path: Path) -> None:
    pictures = [image.read_bytes() for image in sorted(_write_photos(tmp_path).glob("*/*.png"))]
    file = tmp_path / "some.parquet"
    write_parquet(file, pictures[:4], [0, 0, 2, 2], names=("coat", "shirt", "bag"))
    told: list[str] = []
    (task,) = read_tasks(None, str(file), None, None, told.append)
    assert task.classes == ("coat", "bag")
    assert told == [f"left out, {file} has names of them but no photos: 'shirt'"]
    (tmp_path / "tasks.yaml").write_text(f"all: {{data: {file}, classes: [coat, shirt]}}")
    with pytest.raises(DataError, match=r"holds 0 photos of 'shirt', expected 2 or more"):
        read_tasks(tmp_path / "tasks.yaml", None, None, None)


def _write_photos(tmp_path: Path) -> Path:
    write_folder(tmp_path / "photos", make_photos(6))
    return tmp_path / "photos"


def test_a_damaged_cell_of_training_is_one_line(bases: tuple[Any, ...], tmp_path: Path) -> None:
    given = ("novel-classes", *bases, *GIVEN, "--output", tmp_path / "results")
    call(*given)
    cell = tmp_path / "results" / "cells" / "svdiff--task--0.npz"
    whole = cell.read_bytes()
    cell.write_bytes(whole[: len(whole) // 2])
    assert "svdiff--task--0.npz is damaged: " in call(*given, "--resume")
    assert cell.read_bytes() == whole[: len(whole) // 2]
    cell.unlink()
    assert "| SVDiff |" in call(*given, "--resume")
