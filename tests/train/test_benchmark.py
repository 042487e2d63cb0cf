"""The suites of `kind-train benchmark`, on a model and a judge that show label and tailor apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image
from tiny_training import TINY_DIFFUSION, TINY_DIT, make_photos, write_folder

from kind_core.checkpoint import save_checkpoint
from kind_core.classes import ClassInfo
from kind_core.config import ModelConfig
from kind_core.errors import ConfigError, ResultsError
from kind_train.benchmark.drawing import run_row, run_suite
from kind_train.benchmark.options import BenchmarkOptions
from kind_train.benchmark.results import open_folder
from kind_train.benchmark.suite import read_suite
from kind_train.cli import main
from kind_train.evaluate.features import Classification
from kind_train.evaluate.pictures import NULL
from kind_train.plots import draw_curves
from tiny import tiny_model

SUITE = read_suite("class-agnostic")
NONE = [NULL] * 3


class Painter:
    """Draws pictures whose first two pixels hold label and gate, counted from 1."""

    def __init__(self, path: Path, classes: object, settings: object) -> None:
        self.classes, self.size = make_photos().classes, 8

    def draw(self, label: int, gate: int, count: int) -> NDArray[np.uint8]:
        pictures = np.zeros((count, 8, 8, 3), np.uint8)
        pictures[:, 0, 0], pictures[:, 0, 1] = label + 1, gate + 1
        pictures[:, 0, 2] = np.arange(count)[:, None]
        return pictures


class GateReader:
    """A judge that calls a picture the class whose gate was open; without one it is not sure at all."""

    name, sha256 = "gate reader", "0" * 64

    def index(self, info: ClassInfo) -> int | None:
        return int(info.id[-1])

    def classify(self, images: NDArray[np.uint8]) -> Classification:
        logits = np.zeros((len(images), 3), np.float32)
        for row, image in zip(logits, images, strict=True):
            if 0 < image[0, 1, 0] <= 3:
                row[image[0, 1, 0] - 1] = 20
        return Classification(features=logits, logits=logits)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = ModelConfig(dit=TINY_DIT, diffusion=TINY_DIFFUSION, classes=make_photos().classes)
    save_checkpoint(tmp_path / "model", config, tiny_model(TINY_DIT))
    return tmp_path / "model"


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kind_train.benchmark.drawing.CheckpointDrawer", Painter)
    monkeypatch.setattr("kind_train.benchmark.drawing.open_judge", lambda classifier, device: GateReader())


@pytest.mark.usefixtures("painted")
@pytest.mark.parametrize(
    ("name", "label", "gate"),
    [
        ("label-and-tailor", [0, 1, 2], [0, 1, 2]), ("tailor-with-null-label", NONE, [0, 1, 2]),
        ("wrong-tailor", [0, 1, 2], [1, 2, 0]), ("label-without-tailor", [0, 1, 2], NONE), ("learngene", NONE, NONE),
    ],
)  # fmt: skip
def test_rows_draw_with_the_label_and_gate_that_they_name(
    name: str, label: list[int], gate: list[int], checkpoint: Path
) -> None:
    (row,) = SUITE.choose((name,))
    figures, pictures, logits = run_row(
        row, BenchmarkOptions(output=Path(), checkpoint=checkpoint, count=3), GateReader()
    )
    assert [int(one[0, 0, 0]) - 1 for one in pictures] == label
    assert [int(one[0, 1, 0]) - 1 for one in pictures] == gate
    assert len(logits) == 9
    drawn_from = [int(one[0, 2, 0]) for one in pictures]  # the noise of the first picture of each class
    assert drawn_from == ([0, 3, 6] if name == "learngene" else [0, 0, 0])
    # the judge follows the tailor, so that label and tailor swapped would show
    is_wrong = name == "wrong-tailor"
    expected = 1 / 3 if gate == NONE else float(not is_wrong)
    assert figures["called_as_asked"]["value"] == pytest.approx(expected)
    assert figures.get("called_as_tailor", {}).get("value") == (1 if is_wrong else None)
    assert figures["entropy"]["value"] == pytest.approx(np.log(3) if gate == NONE else 0, abs=1e-6)
    assert figures["entropy"]["low"] <= figures["entropy"]["value"] <= figures["entropy"]["high"] + 1e-12


@pytest.mark.usefixtures("painted")
def test_rows_may_be_made_one_by_one_and_resumed(checkpoint: Path, tmp_path: Path) -> None:
    told, output = list[str](), tmp_path / "results"
    options = BenchmarkOptions(output=output, checkpoint=checkpoint, count=3)
    run_suite(SUITE, options, SUITE.choose(("learngene",)))
    before = (output / "cells" / "learngene.npz").read_bytes()
    results = run_suite(SUITE, replace(options, resume=True), SUITE.arms, told.append)
    assert [one["method"] for one in results] == [
        "label-and-tailor", "tailor-with-null-label", "wrong-tailor", "label-without-tailor", "learngene", "noise",
    ]  # fmt: skip
    assert (output / "cells" / "learngene.npz").read_bytes() == before
    assert "held-out photos: left out, it needs --data" in told
    lines = (output / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == results
    table = (output / "results.md").read_text()
    assert "| learngene alone | 9 | 33% (" in table
    assert "4.046, 1.495e-04, 544.9 |" in table
    assert (output / "pictures.png").stat().st_size > 0
    with pytest.raises(ConfigError, match="already holds results of this suite"):
        run_suite(SUITE, options, SUITE.arms)
    with pytest.raises(ResultsError, match="holds results of seed 0, not 1"):
        run_suite(SUITE, replace(options, seed=1, resume=True), SUITE.arms)
    assert (output / "cells" / "learngene.npz").read_bytes() == before


@pytest.mark.usefixtures("painted")
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\x00" * len(b)])
def test_a_damaged_cell_is_one_line(damage: Callable[[bytes], bytes], checkpoint: Path, tmp_path: Path) -> None:
    options, rows = BenchmarkOptions(output=tmp_path / "results", checkpoint=checkpoint, count=3), ("learngene",)
    run_suite(SUITE, options, SUITE.choose(rows))
    cell = tmp_path / "results" / "cells" / "learngene.npz"
    cell.write_bytes(damage(cell.read_bytes()))
    with pytest.raises(ResultsError, match=r"learngene\.npz is damaged: "):
        run_suite(SUITE, replace(options, resume=True), SUITE.choose(rows))
    cell.unlink()
    assert run_suite(SUITE, replace(options, resume=True), SUITE.choose(rows))


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ResultsError, match="holds other files than results of a suite"):
        open_folder(tmp_path, {"suite": "class-agnostic"}, resume=True)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.usefixtures("painted")
def test_photos_stand_beside_what_is_drawn(checkpoint: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", make_photos(12))
    (tmp_path / "photos" / "class_0" / "broken.png").write_bytes(b"no image")
    told, data = list[str](), str(tmp_path / "photos")
    options = BenchmarkOptions(output=tmp_path / "results", checkpoint=checkpoint, count=3, data=data)
    (result,) = run_suite(SUITE, options, SUITE.choose(("photos",)), told.append)
    assert any("broken.png" in line for line in told)
    assert result["num_images"] == 9


@pytest.mark.usefixtures("painted")
def test_inception_judges_where_it_is_given(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Inception:
        name, sha256 = "Inception of a test", "2" * 64

        def __init__(self, path: Path, *, device: str) -> None:
            self.path = path

        def observe(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
            logits = np.eye(1008, dtype=np.float32)[images[:, 0, 1, 0]] * 20
            return {"pooled": np.zeros((len(images), 2048), np.float32), "logits": logits}

    monkeypatch.setattr("kind_train.evaluate.judges.InceptionV3", Inception)
    given = ("class-agnostic", "--checkpoint", checkpoint, "--output", tmp_path / "results", "--count", 3)
    (tmp_path / "weights.pth").write_bytes(b"")
    words = ["benchmark", *map(str, given), "--inception-weights", str(tmp_path / "weights.pth")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (tmp_path / "results" / "results.jsonl").read_text().splitlines()]
    assert {line["judge"] for line in lines} == {"Inception of a test"}
    assert all("called_as_asked" not in line for line in lines)  # it knows no class by name


def call(*arguments: object) -> str:
    result = CliRunner().invoke(main, ["benchmark", *map(str, arguments)])
    assert result.exit_code == 1, result.output
    return result.stderr


def test_what_cannot_be_run_is_one_line(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "results"
    unknown_suite = CliRunner().invoke(main, ["benchmark", "table-9", "--output", str(output)])
    assert unknown_suite.exit_code == 1
    assert "there is no suite 'table-9', expected class-agnostic, cross-class" in unknown_suite.stderr
    unknown = call("class-agnostic", "--methods", "lorra", "--output", output)
    assert "suite 'class-agnostic' has no method 'lorra', expected one of photos, label-and-tailor" in unknown
    assert "method 'photos' needs --data" in call("class-agnostic", "--methods", "photos", "--output", output)
    missing = call("class-agnostic", "--checkpoint", tmp_path / "none", "--output", output)
    assert "no checkpoint" in missing
    assert not output.exists()


def test_sixteen_curves_are_told_apart(tmp_path: Path) -> None:
    """By their samples in the legend: no two are the same, and each stands beside its own name."""
    curves = {f"method {number}": [(1, number), (9, number + 1)] for number in range(16)}
    draw_curves(curves, "distance", tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as picture:
        legend = np.asarray(picture.convert("RGB"))[:, 655:705]
    rows = np.flatnonzero((legend != 255).any((1, 2)))
    samples = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    seen = {legend[sample[0] : sample[-1] + 1].tobytes() for sample in samples}
    assert len(samples) == len(seen) == 16
