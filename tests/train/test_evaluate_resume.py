"""An evaluation that is killed goes on where it stopped, to the same results."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mean_judge import Means
from tiny_network import Colours
from tiny_training import TINY_DIFFUSION, TINY_DIT, make_photos, write_folder

from kind_core.checkpoint import save_checkpoint
from kind_core.config import ModelConfig
from kind_train.cli import main
from kind_train.evaluate.pictures import CheckpointDrawer
from tiny import tiny_model

FAST = ("--count", 5, "--cross-count", 3, "--inception-weights", "none", "--dinov2", "none")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of three classes, photos of them, statistics of the held-out ones, and judges that cost nothing."""
    for module in ("run", "judges", "beside_statistics"):
        monkeypatch.setattr(f"kind_train.evaluate.{module}.open_judge", lambda classifier, device: Means())
    monkeypatch.setattr("kind_train.evaluate.run.open_second_judges", lambda *given: (Colours(),))
    config = ModelConfig(dit=TINY_DIT, diffusion=TINY_DIFFUSION, classes=make_photos().classes)
    save_checkpoint(tmp_path / "model", config, tiny_model(TINY_DIT))
    save_checkpoint(tmp_path / "other", config, tiny_model(replace(TINY_DIT), seed=5))
    for name, seed in (("train", 1), ("val", 2), ("elsewhere", 3)):
        write_folder(tmp_path / name, make_photos(18, seed=seed))
    words = ("statistics", "--data", tmp_path / "val", "--size", 8, "-o", tmp_path / "real", *FAST[-4:])
    assert CliRunner().invoke(main, [*map(str, words)]).exit_code == 0
    return tmp_path


def call(*words: object) -> str:
    """What `kind-train evaluate` said; of one that failed the error alone."""
    result = CliRunner().invoke(main, ["evaluate", *map(str, words)])
    if result.exit_code == 0:
        return result.stderr
    return next((line for line in result.stderr.splitlines() if line.startswith("error")), result.stderr)


def beside_photos(work: Path) -> tuple[object, ...]:
    return ("--checkpoint", work / "model", "--data", work / "train", "--val-data", work / "val", *FAST)


def beside_statistics(work: Path) -> tuple[object, ...]:
    return ("--checkpoint", work / "model", "--real", work / "real", *FAST)


class Draws:
    """What is drawn, as (label, gate); `fails_with` is raised once, in place of the draw of number `fails_at`."""

    def __init__(self) -> None:
        self.pairs: list[tuple[int, int]] = []
        self.fails_at = 0
        self.fails_with: BaseException | None = None

    def take(self) -> list[tuple[int, int]]:
        """What was drawn since it was asked for."""
        taken, self.pairs = self.pairs, []
        return taken


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Draws:
    draws = Draws()
    draw = CheckpointDrawer.draw

    def draw_or_fail(self: CheckpointDrawer, label: int, gate: int, count: int) -> Any:
        if draws.fails_with is not None and len(draws.pairs) == draws.fails_at:
            error, draws.fails_with = draws.fails_with, None
            raise error
        draws.pairs.append((label, gate))
        return draw(self, label, gate, count)

    monkeypatch.setattr(CheckpointDrawer, "draw", draw_or_fail)
    return draws


# labels and gates in order: each class, its neighbour under its tailor, the learngene alone
ALL = [(0, 0), (1, 1), (2, 2), (1, 0), (2, 1), (0, 2), (-1, -1)]


@pytest.mark.parametrize(
    ("beside", "every", "fails_at"),
    [(beside_photos, ALL, 1), (beside_photos, ALL, 5), (beside_statistics, ALL[:3], 2)],
)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("killed")])
def test_a_killed_evaluation_goes_on_to_the_same_report(
    work: Path,
    draws: Draws,
    beside: Callable[[Path], tuple[object, ...]],
    every: list[tuple[int, int]],
    fails_at: int,
    error: BaseException,
) -> None:
    given, whole, half = beside(work), work / "whole.json", work / "half.json"
    call(*given, "-o", whole)
    assert draws.take() == every
    draws.fails_at, draws.fails_with = fails_at, error
    said = call(*given, "-o", half)
    if isinstance(error, KeyboardInterrupt):
        assert said.splitlines()[-1] == f"interrupted; what was seen lies in {half}.seen, continue with --resume"
    assert draws.take() == every[:fails_at]
    assert not half.exists()
    assert f"parts in {half}.seen are not made again" in call(*given, "-o", half, "--resume")
    assert draws.take() == every[fails_at:]
    assert half.read_text() == whole.read_text()
    assert sorted(one.name for one in work.iterdir() if "json" in one.name) == ["half.json", "whole.json"]


def test_photos_are_not_shown_to_the_judge_again(work: Path, draws: Draws, monkeypatch: pytest.MonkeyPatch) -> None:
    draws.fails_at, draws.fails_with = 1, KeyboardInterrupt()
    call(*beside_photos(work), "-o", work / "half.json")
    shown: list[int] = []
    classify, observe = Means.classify, Colours.observe
    monkeypatch.setattr(Means, "classify", lambda self, images: shown.append(len(images)) or classify(self, images))
    monkeypatch.setattr(Colours, "observe", lambda self, images: shown.append(-len(images)) or observe(self, images))
    call(*beside_photos(work), "-o", work / "half.json", "--resume")
    assert shown == [5, -5, 5, -5, 3, 3, 3, 5]


@pytest.fixture
def half(work: Path, draws: Draws) -> Path:
    """The report that an interrupted evaluation would have had."""
    draws.fails_at, draws.fails_with = 1, KeyboardInterrupt()
    call(*beside_photos(work), "-o", work / "half.json")
    draws.take()
    return work / "half.json"


@pytest.mark.parametrize(
    ("other", "change"),
    [
        (("--count", 6), "count 5, not 6"),
        (("--cross-count", 2), "cross_count 3, not 2"),
        (("--seed", 1), "seed 0, not 1"),
        (("--steps", 3), "steps 2, not 3"),
        (("--classes", "class_0,class_1"), "classes ['class_0', 'class_1', 'class_2'], not ['class_0', 'class_1']"),
        (("--checkpoint", "other"), "model '"),
        (("--val-data", "elsewhere"), "--val-data '"),
        (("--data", "elsewhere"), "--data '"),
    ],
)
def test_another_evaluation_is_not_gone_on_with(
    work: Path, half: Path, draws: Draws, other: tuple[str, object], change: str
) -> None:
    option, value = other
    place = work / str(value)
    changed = (*beside_photos(work), option, place if place.exists() else value, "-o", half)
    assert call(*changed, "--resume").startswith(f"error: the evaluation in {half}.seen was begun with {change}")
    assert draws.take() == []
    # what is there stays for the one that it is of
    call(*beside_photos(work), "-o", half, "--resume")
    assert draws.take() == ALL[1:]


def test_what_an_interrupted_evaluation_left_is_named(work: Path, half: Path, draws: Draws) -> None:
    given = (*beside_photos(work), "-o", half)
    result = CliRunner().invoke(main, ["evaluate", *map(str, given)])
    assert f"error: {half}.seen holds an interrupted evaluation" in result.stderr
    assert "continue it with --resume or replace it with --force" in result.stderr
    assert "--resume and --force exclude each other" in call(*given, "--resume", "--force")
    (half.with_name("half.json.seen") / "generated-0.npz").write_bytes(b"PK")
    assert "generated-0.npz is damaged" in call(*given, "--resume")
    call(*given, "--force")
    assert draws.take() == ALL
    assert json.loads(half.read_text())["classes"][0]["class_id"] == "class_0"


def test_what_cannot_be_resumed_is_one_line(work: Path, draws: Draws) -> None:
    given = beside_photos(work)
    assert "there is no evaluation to resume" in call(*given, "-o", work / "new.json", "--resume")
    assert "--resume without --output" in call(*given, "--resume")
    foreign = work / "new.json.seen"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    for words in ((), ("--force",)):
        assert "new.json.seen" in call(*given, "-o", work / "new.json", *words)
        assert (foreign / "notes.txt").read_text() == "mine"
    # of one that was stopped before anything was seen nothing stays
    draws.fails_with = KeyboardInterrupt()
    call(*beside_statistics(work), "-o", work / "none.json")
    assert not (work / "none.json.seen").exists()
