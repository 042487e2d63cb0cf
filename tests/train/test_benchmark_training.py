"""Suites that train: their cells, what all methods of a task share, resuming, tables and refusals."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from mean_judge import Means
from tiny_suites import FAST, call, read_lines
from tiny_training import TINY_DIFFUSION, TINY_DIT, encode, make_photos, tiny_preset, write_folder, write_parquet

from kind_core.checkpoint import load_checkpoint, read_config
from kind_core.classes import ClassInfo
from kind_train.benchmark.cells import Cell, Stored
from kind_train.benchmark.results import to_markdown
from kind_train.benchmark.suite import SUITES, TRAINING_SUITES, Arm, TrainingSuite, read_suite
from kind_train.benchmark.summary import part_photos, summarise
from kind_train.benchmark.tables import compare_order
from kind_train.benchmark.tasks import Task
from kind_train.cli import main
from kind_train.config import METHODS
from kind_train.data.caching import CacheRequest, make_cache
from kind_train.evaluate.against import Measured
from kind_train.evaluate.frechet import MomentSums, compare_with_moments, frechet_distance
from kind_train.evaluate.pictures import CheckpointDrawer
from kind_train.evaluate.statistics import RealStatistics, SeenBy
from kind_train.objective import Objective
from kind_train.run.trainer import Trainer
from tiny_autoencoder import save_autoencoder

pytestmark = pytest.mark.usefixtures("one_thread")
THREE = ("--methods", "tailors,svdiff,full-ft")


def without_time(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if name not in ("seconds_per_step", "processor_seconds")}


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_that_ships_is_whole(name: str) -> None:
    suite = read_suite(name)
    assert suite.title
    if isinstance(suite, TrainingSuite):
        assert set(suite.scales) == {"small", "paper"}
        known = {arm.name for arm in suite.arms}
        assert set(suite.paper) <= known
        assert all(len(values) == len(suite.columns) for values in suite.paper.values())
        methods = {o["method"] for arm in suite.arms for stage, o in arm.stages if stage == "adapt"}
        assert methods <= set(METHODS)


def test_all_methods_are_compared_on_new_classes() -> None:
    suite = read_suite("novel-classes")
    assert isinstance(suite, TrainingSuite)
    assert [arm.name for arm in suite.arms] == [arm.stages[0][1]["method"] for arm in suite.arms]
    assert {arm.name for arm in suite.arms} == set(METHODS)


def test_a_suite_from_two_bases_to_its_page(bases: tuple[Any, ...], tmp_path: Path) -> None:
    output = tmp_path / "results"
    printed = call("novel-classes", *bases, *FAST, *THREE, "--output", output)
    assert "| KIND |" in printed
    lines = read_lines(output)
    assert [line["arm"] for line in lines] == ["tailors", "full-ft", "svdiff"]
    for line in lines:
        assert set(line["overall"]) == {"distance", "precision", "recall", "called_as_asked"}
        assert line["overall"]["distance"]["low"] <= line["overall"]["distance"]["value"]
        assert len(line["curve"]) == 4
        assert line["trained"] > 0
        with np.load(output / "cells" / f"{line['arm']}--task--0.npz") as cell:
            assert cell["means/features"].shape == (12, 3)
            assert cell["labels"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    table = (output / "results.md").read_text()
    assert "| 26.49 | 14.51 |" in table
    assert "(paper: yes)" in table
    assert "24 training images in batches of 4" in table
    assert "\n| held-out photos | " in table
    page = (output / "index.html").read_text()
    assert "<title>New classes (tables 2, 8 and 4): results</title>" in page
    assert page.count("data:image/png;base64,") == 2
    assert "<script" not in page
    assert all((output / name).stat().st_size for name in ("pictures.png", "curve.png"))
    assert not list(output.glob("runs/*/*/state"))
    listed = call("novel-classes", *bases, *FAST, *THREE, "--output", output, "--list-cells")
    assert listed.splitlines() == ["0  tailors--task--0  done", "1  full-ft--task--0  done", "2  svdiff--task--0  done"]


def test_a_cell_made_alone_is_that_of_the_whole_suite(bases: tuple[Any, ...], tmp_path: Path) -> None:
    given = (*bases, *FAST, "--methods", "tailors,svdiff", "--task-size", 2)
    call("novel-classes", *given, "--output", tmp_path / "whole")
    for cell in (3, 0, 2, 1):
        call("novel-classes", *given, "--output", tmp_path / "parts", "--cell", cell)
    whole, parts = (read_lines(tmp_path / name) for name in ("whole", "parts"))
    assert [without_time(one) for one in whole] == [without_time(one) for one in parts]
    assert {one["task"] for one in whole} == {"task-01", "task-02", "pooled"}
    assert "## Task by task: distance" in (tmp_path / "whole" / "results.md").read_text()
    assert "there is no cell '4', expected a name or 0 to 3" in call(
        "novel-classes", *given, "--output", tmp_path / "parts", "--cell", 4
    )


def test_all_methods_of_a_task_see_the_same(
    bases: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photos, noise and timesteps of every step, whether labels are dropped or not."""
    seen: list[str] = []
    add = Objective.add_noise

    def record(self: Objective, images: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            parts = (images, noise, timesteps)
            seen.append(hashlib.sha256(b"".join(one.numpy().tobytes() for one in parts)).hexdigest())
        return add(self, images, noise, timesteps)

    monkeypatch.setattr(Objective, "add_noise", record)
    by_method = {}
    for name in ("tailors", "svdiff", "full-ft", "open-tailors"):
        seen.clear()
        call("gpu-time" if name != "open-tailors" else "novel-classes", *bases, *FAST[4:], "--methods", name,
             "--output", tmp_path / name, *(() if name != "open-tailors" else ("--inception-weights", "none",
                                                                             "--dinov2", "none")))  # fmt: skip
        by_method[name] = list(dict.fromkeys(seen))
    assert len(set(map(tuple, by_method.values()))) == 1
    assert len(by_method["tailors"]) == 6


def test_a_killed_cell_goes_on_to_the_same_results(
    bases: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("novel-classes", *bases, *FAST, "--methods", "svdiff")
    call(*given, "--output", tmp_path / "whole")
    save = Trainer.save
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save", _kill_after(save, step=3))
        result = CliRunner().invoke(main, ["benchmark", *map(str, given), "--output", str(tmp_path / "half")])
        assert result.exit_code != 0
    assert not (tmp_path / "half" / "cells").exists()
    call(*given, "--output", tmp_path / "half", "--resume")
    (tmp_path / "whole" / "cells" / "svdiff--task--0.npz").unlink()  # made anew
    call(*given, "--output", tmp_path / "whole", "--resume")
    whole, half = (read_lines(tmp_path / name) for name in ("whole", "half"))
    assert [without_time(one) for one in whole] == [without_time(one) for one in half]


def test_a_cell_that_was_killed_while_it_drew_draws_on(
    bases: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("novel-classes", *bases, *FAST, "--methods", "svdiff")
    call(*given, "--output", tmp_path / "whole")
    drawn: list[int] = []
    draw = CheckpointDrawer.draw

    def draw_or_die(self: CheckpointDrawer, label: int, gate: int, count: int) -> Any:
        if len(drawn) == 2:
            drawn.append(-1)
            raise KeyboardInterrupt
        drawn.append(label)
        return draw(self, label, gate, count)

    monkeypatch.setattr(CheckpointDrawer, "draw", draw_or_die)
    words = ["benchmark", *map(str, given), "--output", str(tmp_path / "half")]
    assert CliRunner().invoke(main, words).exit_code != 0
    call(*given, "--output", tmp_path / "half", "--resume")
    assert drawn == [0, 1, -1, 2, 0, 1, 2]  # then the pictures that are shown
    whole, half = (read_lines(tmp_path / name) for name in ("whole", "half"))
    assert [without_time(one) for one in whole] == [without_time(one) for one in half]
    assert not list(tmp_path.glob("half/runs/*/seen"))


def _kill_after(save: Any, *, step: int) -> Any:
    def save_and_die(self: Trainer) -> None:
        save(self)
        if self.step == step:
            raise KeyboardInterrupt

    return save_and_die


def test_figures_are_taken_at_every_point(bases: tuple[Any, ...], tmp_path: Path, monkeypatch: Any) -> None:
    suite = read_suite("convergence")
    assert isinstance(suite, TrainingSuite)
    small = replace(suite.scales["small"], points=(8, 16))
    monkeypatch.setattr("kind_train.benchmark.suite.read_suite", lambda name: replace(suite, scales={"small": small}))
    call("convergence", *bases, *FAST, "--methods", "svdiff", "--output", tmp_path / "results")
    (line,) = read_lines(tmp_path / "results")
    assert [point["images"] for point in line["points"]] == [8, 16, 24]
    assert line["overall"] == line["points"][-1]["overall"]
    assert line["points"][0]["overall"] != line["overall"]


def test_norms_are_those_of_the_products(bases: tuple[Any, ...], tmp_path: Path) -> None:
    call("frobenius", *bases, *FAST, "--output", tmp_path / "norms")
    (line,) = read_lines(tmp_path / "norms")
    chosen = [3, 4, 5]  # behind the classes of the base
    model = load_checkpoint(tmp_path / "norms" / "runs" / "tailors--task--0" / "0-adapt" / "last", chosen).model
    state = model.learngene_state()
    shares = []
    for index in range(3):
        tailor = model.tailors.state_of(index)
        shares += [_norm(tailor, name) / _norm(state, name) for name, _, _ in model.config.matrix_names()]
    assert line["tailor_norm"]["value"] == pytest.approx(sum(shares) / len(shares), rel=1e-4)


def _norm(factors: dict[str, torch.Tensor], name: str) -> float:
    U, s, V = (factors[f"{name}.{factor}"] for factor in "UsV")
    return float(torch.linalg.matrix_norm(U @ torch.diag(s) @ V.T))


def test_a_gradient_reaches_the_tailor_of_its_own_class_alone(
    bases: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kind_train.start.shape.preset", tiny_preset)
    call("gradient-sparsity", *bases[4:], "--images", 24, "--batch-size", 4, "--output", tmp_path / "gradients")
    gates, opened = read_lines(tmp_path / "gradients")
    assert gates["tailor_gradient_share"]["value"] == pytest.approx(1 / 3, abs=1e-3)  # of three classes
    rank, own = TINY_DIT.learngene_rank, TINY_DIT.tailor_rank
    assert rank is not None
    reached = (rank + own) / (rank + 3 * own)
    assert gates["component_gradient_share"]["value"] == pytest.approx(reached, abs=1e-3)
    assert opened["component_gradient_share"]["value"] == pytest.approx(1, abs=1e-3)
    assert "tailor_gradient_share" not in opened  # no component is a tailor
    table = (tmp_path / "gradients" / "results.md").read_text()
    assert "Without gates no component is a tailor" in table
    assert re.search(r"^\| all gates open \|.*%\) \|  \|$", table, re.MULTILINE)
    assert gates["gradient_share"]["high"] < opened["gradient_share"]["low"]


def test_a_gradient_is_measured_on_latents_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dit = replace(TINY_DIT, in_channels=4, sample_size=8, patch_size=2)
    monkeypatch.setattr("kind_train.start.shape.preset", lambda name: (dit, TINY_DIFFUSION))
    write_folder(tmp_path / "photos", make_photos(12, size=16))
    autoencoder = save_autoencoder(tmp_path / "kl", "AutoencoderKL")
    make_cache(
        CacheRequest(
            data=str(tmp_path / "photos"), autoencoder=autoencoder, output=tmp_path / "cache", size=16, device="cpu"
        )
    )
    small = ("--images", 8, "--batch-size", 4, "--methods", "gates")
    told = call("gradient-sparsity", "--data", tmp_path / "cache", *small, "--output", tmp_path / "gradients")
    assert not told.startswith("failed")
    (gates,) = read_lines(tmp_path / "gradients")
    assert gates["tailor_gradient_share"]["value"] == pytest.approx(1 / 3, abs=1e-3)


def test_bases_of_fewer_classes_are_trained_as_asked(
    bases: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kind_train.start.shape.preset", tiny_preset)
    old = make_photos(32, num_classes=8, size=16, seed=2)
    known = tuple(ClassInfo(id=f"old_{number}", names=(f"old {number}",)) for number in range(8))
    write_folder(tmp_path / "old", replace(old, classes=known))
    given = (*bases[4:], "--base-data", tmp_path / "old", "--base-images", 8, "--size", 16)
    output = tmp_path / "results"
    call("num-classes", *given, *FAST, "--methods", "all,quarter", "--output", output)
    lines = read_lines(output)
    assert [line["arm"] for line in lines] == ["all", "quarter"]
    for line, count in zip(lines, (8, 2), strict=True):
        assert len(line["classes"]) == 3
        run = output / "runs" / f"{line['arm']}--task--0"
        base = read_config(run / "0-fit" / "last")
        assert (len(base.classes), base.dit.sample_size) == (count, 16)
        assert "images: 8\n" in (run / "0-fit" / "options.yaml").read_text()
        assert "images: 24\n" in (run / "1-adapt" / "options.yaml").read_text()
        assert len(read_config(run / "1-adapt" / "last").classes) == count + 3
    refused = ("novel-classes", *bases, *FAST, "--methods", "svdiff", "--output", tmp_path / "other")
    assert "--base-images is for num-classes" in call(*refused, "--base-images", 8)
    assert "--episodes is for few-shot" in call(*refused, "--episodes", 8)


def test_a_base_is_trained_on_the_classes_that_have_photos(
    bases: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may name more, which neither the share of the classes nor the run counts."""
    monkeypatch.setattr("kind_train.start.shape.preset", tiny_preset)
    old = make_photos(16, num_classes=4, seed=2)
    names = ["ghost", *(f"old {number}" for number in range(4))]
    write_parquet(tmp_path / "old.parquet", [encode(one) for one in old.images], (old.labels + 1).tolist(), names)
    given = (*bases[4:], "--base-data", tmp_path / "old.parquet", "--base-images", 8)
    told = call("num-classes", *given, *FAST, "--methods", "half", "--output", tmp_path / "results")
    assert not told.startswith("failed")
    base = read_config(tmp_path / "results/runs/half--task--0/0-fit/last")
    assert [info.name for info in base.classes] == ["old 0", "old 1"]


def test_what_cannot_be_run_is_one_line(
    bases: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = ("--output", tmp_path / "results")
    given = ("novel-classes", *bases, *FAST)
    assert "suite 'novel-classes' has no method 'lorra', expected one of tailors" in call(
        *given, "--methods", "lorra", *output
    )
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    assert "method 'lora' needs peft" in call(*given, "--methods", "svdiff,lora", *output)
    swapped = ("novel-classes", "--checkpoint", bases[3], *bases[4:], *FAST)
    assert "is dense, method 'tailors' starts from a decomposed base" in call(*swapped, "--methods", "tailors", *output)
    assert "method 'svdiff' needs --dense" in call(
        "novel-classes", *bases[:2], *bases[4:], *FAST, "--methods", "svdiff", *output
    )
    write_folder(tmp_path / "few", make_photos(4))
    few = ("novel-classes", *bases[:4], "--data", tmp_path / "few", *FAST)
    assert "task 'all':" in call(*few, *output)
    assert "holds 1 photos of 'class 1', expected 2 or more" in call(*few, *output)
    assert "no data at nowhere" in call("novel-classes", *bases[:4], "--data", "nowhere", *FAST, *output)
    lost = ("--inception-weights", tmp_path / "lost.pth")
    assert "--inception-weights: there is no file" in call(*given, *lost, "--methods", "svdiff", *output)
    (tmp_path / "tasks.yaml").write_text("bears: {photos: here}")
    assert "tasks.yaml: 'bears' is no task" in call(
        "novel-classes", *bases[:4], "--tasks", tmp_path / "tasks.yaml", *FAST, *output
    )
    assert not (tmp_path / "results").exists()
    call(*given, "--methods", "svdiff", *output)
    before = read_lines(tmp_path / "results")
    other = ("domain-shift", *given[1:], "--methods", "svdiff")
    assert "holds results of suite 'novel-classes', not 'domain-shift'" in call(*other, *output)
    assert "holds results of images 24, not 28" in call(*given, "--images", 28, "--methods", "svdiff", *output)
    assert "already holds results of this suite" in call(*given, "--methods", "svdiff", *output)
    assert read_lines(tmp_path / "results") == before


def _stored(arm: str, task: str, rows: np.ndarray, distance: float = 1.0) -> Stored:
    figure = {"value": distance, "low": distance, "high": distance, "n": len(rows), "n_real": 9}
    figures = {"arm": arm, "curve": [], "overall": {"distance": figure}, "held_out_loss": 0.1}
    cell = Cell(
        arm=Arm(name=arm, title=arm, stages=()),
        task=Task(name=task, data="d", val_data=None, classes=("a",)),
        seed=0,
    )
    return Stored(cell=cell, figures=figures, pictures=None, seen={("means", "features"): rows})


def test_a_pooled_distance_is_that_of_all_rows_together() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.normal(shift, 1, (30, 3)).astype(np.float32) for shift in (0, 4)]
    photos = [rng.normal(shift, 1, (50, 3)).astype(np.float32) for shift in (0, 4)]
    real = {}
    for name, own in zip("ab", photos, strict=True):
        real[name] = RealStatistics(
            classes=(), counts=(50,), size=8, photos_sha256="", networks=(), labels=np.zeros(50, np.int64),
            moments={("means", "features"): _moments(own)}, rows={("means", "features"): own},
        )  # fmt: skip
    suite = read_suite("novel-classes")
    assert isinstance(suite, TrainingSuite)
    stored = [_stored("tailors", name, own) for name, own in zip("ab", rows, strict=True)]
    results = summarise(suite, suite.scales["small"], stored, real)
    pooled = results.lines[-1]["distance"]["value"]
    whole = compare_with_moments(np.concatenate(rows), _moments(np.concatenate(photos)))
    assert pooled == pytest.approx(whole.distance, rel=1e-9)
    assert "Task by task: distance" in to_markdown(results)


def test_photos_in_the_place_of_pictures_are_not_those_they_are_held_against() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    real = RealStatistics(
        classes=make_photos().classes, counts=(20, 20, 20), size=8, photos_sha256="",
        networks=(SeenBy(name="means", sha256="0" * 64, features=("features", "logits")),),
        labels=np.arange(60) % 3, moments={("means", "features"): _moments(rows)},
        rows={("means", "features"): rows, ("means", "logits"): np.eye(3, dtype=np.float32)[np.arange(60) % 3]},
    )  # fmt: skip
    task = Task(name="a", data="d", val_data=None, classes=())
    parted = part_photos(task, real, 20, Means())
    assert parted is not None
    stored, others = parted
    drawn, rest = stored.seen["means", "features"], others.rows["means", "features"]
    assert len(drawn) == 20
    assert {row.tobytes() for row in drawn} | {row.tobytes() for row in rest} == {row.tobytes() for row in rows}
    assert len(rest) == others.moments["means", "features"].n == 40
    found = stored.figures["overall"]
    assert found["distance"]["value"] == pytest.approx(frechet_distance(drawn, rest), rel=1e-6)
    outputs = [Means().index(info) for info in real.classes]
    hits = [outputs[label] == answer for label, answer in zip(*_asked(stored, real, drawn), strict=True)]
    assert found["called_as_asked"]["value"] == pytest.approx(np.mean(hits))
    assert part_photos(task, real, 7, Means()) is None


def _asked(stored: Stored, real: RealStatistics, drawn: np.ndarray) -> tuple[list[int], list[int]]:
    """The labels of the drawn photos, and what `Means` calls them."""
    places = [int(np.flatnonzero((real.rows["means", "features"] == row).all(1))[0]) for row in drawn]
    return real.labels[places].tolist(), stored.seen["means", "logits"].argmax(1).tolist()


def _moments(rows: np.ndarray) -> Any:
    sums = MomentSums()
    sums.add(rows)
    return sums.moments()


@pytest.mark.parametrize(
    ("ours", "theirs", "found"), [((1, 2), (3, 4), "yes"), ((5, 6), (3, 4), "no"), ((1, 3), (2, 4), "undecided")]
)
def test_an_order_is_decided_where_intervals_do_not_meet(
    ours: tuple[float, float], theirs: tuple[float, float], found: str
) -> None:
    suite = read_suite("novel-classes")
    assert isinstance(suite, TrainingSuite)
    lora = next(arm for arm in suite.arms if arm.name == "lora")
    figures = {
        name: {"distance": Measured(value=sum(ends) / 2, low=ends[0], high=ends[1], n=9)}
        for name, ends in (("tailors", ours), ("lora", theirs))
    }
    assert compare_order(suite, lora, figures) == f"{found} (paper: yes)"


def test_every_training_suite_has_a_small_scale_that_fits_its_points() -> None:
    for name in TRAINING_SUITES:
        suite = read_suite(name)
        assert isinstance(suite, TrainingSuite)
        for scale in suite.scales.values():
            assert not scale.points or scale.points[-1] == scale.images
